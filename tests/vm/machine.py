"""A virtual machine with Debian's kernel and real Video4Linux devices, for tests on machines that have none.

The guest sees this machine's files, read-only, and over them a writable layer that vanishes with it: it runs the same
Python and the same package. It is emulated, without KVM: that needs no rights, and is about fifteen times slower.
"""

import contextlib
import gzip
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

_INIT = """#!/bin/busybox sh
B=/bin/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
while read -r module; do $B insmod $module; done < /modules
$B mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro host /host
$B mount -t tmpfs layer /layer; $B mkdir -p /layer/upper /layer/work
$B mount -t overlay root -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work /root
$B mount --bind /dev /root/dev; $B mount -t proc proc /root/proc; $B mount -t sysfs sys /root/sys
$B mkdir -p /root/dev/shm; $B mount -t tmpfs shm /root/dev/shm
$B cp -r /modules.d /root/guest-modules
$B ip link set lo up
$B cp /script /root/guest-script
echo "guest-begun"
$B chroot /root /bin/bash /guest-script
echo "guest-rc $?"
$B poweroff -f
"""
_BUILTIN = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "videodev")
_PACKAGES = "apt-get install qemu-system-x86 linux-image-amd64 busybox-static cpio kmod"


@dataclass(frozen=True, slots=True)
class Ended:
    """What a script in the guest came to."""

    rc: int
    output: str


def run_in_guest(command: list[str], folder: Path, modules: Mapping[str, str], timeout_s: float = 240) -> Ended:
    """Boot, load `modules` (name to parameters) in that order, run `command` as root, and power off.

    `folder` takes the initial file system. Of the environment PATH, PYTHONPATH and HOME go with it. In the guest
    `/guest-modules/NAME.ko` are the modules' files, for a test that takes one out and puts it in again. Skips the test
    where the programs, the kernel or a module are absent, and where the kernel does not come up in time: emulated, on a
    machine that has other work, it may not."""
    kernel = _kernel()
    files = _module_files(kernel, modules)
    initial = _initial_file_system(folder, command, files, modules)
    qemu = [
        "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "3072", "-smp", "2", "-nographic", "-no-reboot",
        "-nic", "none", "-kernel", f"/boot/vmlinuz-{kernel}", "-initrd", str(initial),
        "-append", "console=ttyS0 quiet panic=-1 no_timer_check",  # on a busy host the check fails and the kernel stops
        "-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
    ]  # fmt: skip
    console = folder / "console"
    with console.open("wb") as out, contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(qemu, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=timeout_s, check=False)
    output = console.read_text(errors="replace").replace("\r", "")
    told = re.search(r"guest-rc (\d+)", output)
    if told is None and "guest-begun" not in output:  # nothing of ours has run yet
        pytest.skip(f"the virtual machine did not come up within {timeout_s:g} s: {output[-200:].strip()!r}")
    assert told is not None, f"the guest did not come to its end:\n{output[-3000:]}"
    return Ended(int(told[1]), output[: told.start()])


def _kernel() -> str:
    """The newest kernel that has both an image and modules."""
    for program in ("qemu-system-x86_64", "busybox", "cpio", "modprobe"):
        if shutil.which(program) is None and not Path("/sbin", program).exists():
            pytest.skip(f"no {program} for a virtual machine: {_PACKAGES}")
    kernels = sorted(p.name for p in Path("/lib/modules").glob("*") if Path(f"/boot/vmlinuz-{p.name}").is_file())
    if not kernels:
        pytest.skip(f"no kernel in /boot for a virtual machine: {_PACKAGES}")
    return kernels[-1]


def _module_files(kernel: str, modules: Mapping[str, str]) -> list[Path]:
    """The modules' files and those they depend on, in the order of loading."""
    files: dict[Path, None] = {}
    for name in (*_BUILTIN, *modules):
        asked = ["/sbin/modprobe", "-S", kernel, "-d", "/", "--show-depends", name]
        told = subprocess.run(asked, capture_output=True, text=True, check=False)
        if told.returncode:
            pytest.skip(f"kernel {kernel} has no module {name}: {told.stderr.strip()}")
        for line in told.stdout.splitlines():
            verb, _, path = line.partition(" ")
            if verb == "insmod":
                files[Path(path.split()[0])] = None
    return list(files)


def _initial_file_system(folder: Path, command: list[str], files: list[Path], modules: Mapping[str, str]) -> Path:
    root = folder / "initial"
    for name in ("bin", "modules.d", "proc", "sys", "dev", "host", "layer", "root"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin")
    lines = []
    for file in files:
        shutil.copy(file, root / "modules.d")
        lines.append(f"/modules.d/{file.name} {modules.get(file.name.removesuffix('.ko'), '')}".rstrip())
    (root / "modules").write_text("\n".join(lines) + "\n")
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME") if name in os.environ}
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in kept.items())
    (root / "script").write_text(f"{exports}cd {shlex.quote(str(Path.cwd()))}\n{shlex.join(command)}\n")
    (root / "init").write_text(_INIT)
    (root / "init").chmod(0o755)
    names = "\n".join(str(p.relative_to(root)) for p in [root, *sorted(root.rglob("*"))])
    packed = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=names.encode(), capture_output=True, check=True
    )
    initial = folder / "initial.gz"
    initial.write_bytes(gzip.compress(packed.stdout, 1))
    return initial


def python_in_guest(script: Path, folder: Path, modules: Mapping[str, str], timeout_s: float = 240) -> Ended:
    """`run_in_guest` of a Python script with this Python."""
    return run_in_guest([sys.executable, "-B", str(script)], folder, modules, timeout_s)
