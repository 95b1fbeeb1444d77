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
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

_BEGUN = "guest-begun"
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
echo "{begun}"
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


def run_in_guest(
    command: list[str], folder: Path, modules: Mapping[str, str | None], *, up_s: float = 90, timeout_s: float = 240
) -> Ended:
    """Boot, load `modules` (name to parameters) in that order, run `command` as root, and power off.

    A module without parameters (None) is not loaded. In the guest `/guest-modules/NAME.ko` are the files of all, for
    what loads one itself. `folder` takes the initial file system. Of the environment PATH, PYTHONPATH and HOME go with
    it. Skips where the programs, the kernel or a module are absent, and where the kernel does not come up within
    `up_s`: emulated, on a machine that has other work, it may not."""
    kernel = _kernel()
    files = _module_files(kernel, modules)
    initial = _initial_file_system(folder, command, files, modules)
    qemu = [
        "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", "3072", "-smp", "2", "-nographic",
        "-no-reboot", "-nic", "none", "-kernel", f"/boot/vmlinuz-{kernel}", "-initrd", str(initial),
        "-append", "console=ttyS0 quiet panic=-1 no_timer_check",  # on a busy host the check fails and the kernel stops
        "-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
    ]  # fmt: skip
    console = folder / "console"
    _run(qemu, console, up_s, timeout_s)
    output = _text(console)
    told = re.search(r"guest-rc (\d+)", output)
    if told is None and _BEGUN not in output:  # nothing of ours has run yet
        pytest.skip(f"the virtual machine did not come up within {up_s:g} s: {output[-200:].strip()!r}")
    assert told is not None, f"the guest did not come to its end within {timeout_s:g} s:\n{output[-3000:]}"
    return Ended(int(told[1]), output[: told.start()])


def _run(qemu: list[str], console: Path, up_s: float, timeout_s: float) -> None:
    """Until it powers off; killed, with its process group, if not begun by `up_s` or not ended by `timeout_s`."""
    began_s = time.monotonic()
    with console.open("wb") as out:
        process = subprocess.Popen(qemu, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    try:
        for until_s, needed in ((up_s, True), (timeout_s, False)):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, began_s + until_s - time.monotonic()))
            if process.returncode is not None or (needed and _BEGUN not in _text(console)):
                return
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _text(console: Path) -> str:
    return console.read_text(errors="replace").replace("\r", "")


def _kernel() -> str:
    """The newest kernel that has both an image and modules."""
    for program in ("qemu-system-x86_64", "busybox", "cpio", "modprobe"):
        if shutil.which(program) is None and not Path("/sbin", program).exists():
            pytest.skip(f"no {program} for a virtual machine: {_PACKAGES}")
    kernels = sorted(p.name for p in Path("/lib/modules").glob("*") if Path(f"/boot/vmlinuz-{p.name}").is_file())
    if not kernels:
        pytest.skip(f"no kernel in /boot for a virtual machine: {_PACKAGES}")
    return kernels[-1]


def _module_files(kernel: str, modules: Mapping[str, str | None]) -> list[Path]:
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


def _initial_file_system(
    folder: Path, command: list[str], files: list[Path], modules: Mapping[str, str | None]
) -> Path:
    root = folder / "initial"
    for name in ("bin", "modules.d", "proc", "sys", "dev", "host", "layer", "root"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin")
    lines = []
    for file in files:
        shutil.copy(file, root / "modules.d")
        parameters = modules.get(file.name.removesuffix(".ko"), "")
        if parameters is not None:
            lines.append(f"/modules.d/{file.name} {parameters}".rstrip())
    (root / "modules").write_text("\n".join(lines) + "\n")
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME") if name in os.environ}
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in kept.items())
    (root / "script").write_text(f"{exports}cd {shlex.quote(str(Path.cwd()))}\n{shlex.join(command)}\n")
    (root / "init").write_text(_INIT.replace("{begun}", _BEGUN))
    (root / "init").chmod(0o755)
    names = "\n".join(str(p.relative_to(root)) for p in [root, *sorted(root.rglob("*"))])
    packed = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=names.encode(), capture_output=True, check=True
    )
    initial = folder / "initial.gz"
    initial.write_bytes(gzip.compress(packed.stdout, 1))
    return initial
