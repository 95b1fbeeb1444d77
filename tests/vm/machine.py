"""A virtual machine with Debian's kernel and the video drivers this kernel lacks: v4l2loopback and vivid.

The guest sees the host's files, read-only, under a layer in memory; it is emulated, so no KVM is needed and everything
takes about ten times as long as here. A command in it takes some 20 s, most of that Python's imports.

    /dev/video0   a camera (vivid)
    /dev/video10  v4l2loopback, called VCam
"""

import gzip
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGES = "qemu-system-x86 linux-image-amd64 linux-headers-amd64 v4l2loopback-dkms v4l-utils busybox-static cpio kmod"
_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "videodev", "v4l2loopback", "vivid")
_SECONDS = 280

_INIT = """#!/bin/busybox sh
B=/bin/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
while read m; do case $m in
  v4l2loopback.ko*) $B insmod /m/$m devices=1 video_nr=10 card_label=VCam exclusive_caps={exclusive} max_buffers=4;;
  vivid.ko*) $B insmod /m/$m n_devs=1 node_types=0x1 vid_cap_nr=0;;
  *) $B insmod /m/$m;; esac; done < /mods
$B mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,ro,cache=loose host /host
$B mount -t tmpfs t /ov; $B mkdir -p /ov/u /ov/w
$B mount -t overlay o -o lowerdir=/host,upperdir=/ov/u,workdir=/ov/w /mnt
$B mount --bind /dev /mnt/dev; $B mount -t proc proc /mnt/proc; $B mount -t sysfs sys /mnt/sys
$B mkdir -p /mnt/dev/shm; $B mount -t tmpfs s /mnt/dev/shm
$B ip link set lo up; $B cp /command /mnt/tmp/command
$B chroot /mnt /bin/bash /tmp/command; echo GUEST_RC=$?
$B poweroff -f
"""


@dataclass(frozen=True, slots=True)
class Finished:
    """What a command in the guest said, and its exit status."""

    output: str
    code: int


def require() -> None:
    """Skip the test where the programs or the kernel are absent."""
    missing = [name for name in ("qemu-system-x86_64", "cpio", "modprobe", "busybox") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is absent: apt install {PACKAGES}")
    if not any(_loopback(kernel) for kernel in _kernels()):
        pytest.skip(f"no kernel with v4l2loopback in /lib/modules: apt install {PACKAGES}")


def run(command: str, folder: Path, exclusive_caps: int) -> Finished:
    """Run a bash command as root in the guest. `folder` is for what the machine is made of."""
    kernel = next(kernel for kernel in reversed(_kernels()) if _loopback(kernel))
    initrd = _initrd(command, folder, kernel.name, exclusive_caps)
    machine = subprocess.run(
        [
            *("timeout", "-k", "5", str(_SECONDS), "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max"),
            *("-m", "3072", "-smp", "2", "-nographic", "-no-reboot", "-nic", "none"),
            *("-kernel", f"/boot/vmlinuz-{kernel.name}", "-initrd", str(initrd)),
            *("-append", "console=ttyS0 quiet panic=-1"),
            *("-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"),
        ],
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    output = machine.stdout.decode(errors="replace").replace("\r", "")
    found = re.findall(r"GUEST_RC=(\d+)", output)
    return Finished(output, int(found[-1]) if found else 99)


def _kernels() -> list[Path]:
    return sorted(Path("/lib/modules").glob("*-amd64")) if Path("/lib/modules").is_dir() else []


def _loopback(kernel: Path) -> list[Path]:
    return list(kernel.rglob("v4l2loopback.ko*"))


def _initrd(command: str, folder: Path, kernel: str, exclusive_caps: int) -> Path:
    root = folder / "root"
    for name in ("bin", "m", "proc", "sys", "dev", "mnt", "host", "ov"):
        (root / name).mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, root / "bin" / "busybox")
    needed: dict[str, None] = {}
    for module in _MODULES:
        shown = ["modprobe", "-S", kernel, "-d", "/", "--show-depends", module]
        for line in subprocess.run(shown, capture_output=True, text=True, check=True).stdout.splitlines():
            if line.startswith("insmod"):
                needed[line.split()[1]] = None
    for path in needed:
        shutil.copy(path, root / "m")
    (root / "mods").write_text("".join(f"{Path(path).name}\n" for path in needed))
    (root / "command").write_text(command)
    init = root / "init"
    init.write_text(_INIT.replace("{exclusive}", str(exclusive_caps)))
    init.chmod(0o755)
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    packed = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=names.encode(), capture_output=True
    )
    target = folder / "initrd.gz"
    target.write_bytes(gzip.compress(packed.stdout, 1))
    return target
