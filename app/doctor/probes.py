"""The doctor's probes.

Every probe imports what it needs itself and is guarded, so that a broken package is a finding, not a traceback.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module, metadata
from pathlib import Path

from warpfuse.doctor.finding import Finding, Probe, guarded
from warpfuse.doctor.video_probes import ffmpeg, sharing, video, video_of_cards, virtual_cameras

PYTHONS = (3, 11), (3, 13)
"""The oldest and newest supported Python, as in `requires-python` of the package."""

SHM_ENOUGH = 256 << 20  # bytes for the slots of a 1080p graph; containers often have only 64 MiB
MEMORY_ENOUGH = 2 << 30


def _python() -> Iterator[Finding]:
    version = sys.version_info[:2]
    low, high = (".".join(map(str, limit)) for limit in PYTHONS)
    fits = PYTHONS[0] <= version <= PYTHONS[1]
    remedy = "" if fits else f"python{high} -m venv .venv && .venv/bin/pip install 'warpfuse[cpu]'"
    detail = f"{sys.version.split()[0]} at {sys.executable}, supported are {low} to {high}"
    yield Finding("software", "python", fits, detail, remedy, True)


def _warpfuse() -> Iterator[Finding]:
    from warpfuse.version import __version__

    yield Finding("software", "warpfuse", True, f"{__version__} in {Path(__file__).parent}", needed=True)


def _torch() -> Iterator[Finding]:
    torch = import_module("torch")
    build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU"
    yield Finding("software", "torch", True, f"{torch.__version__}, {build}", needed=True)


def _packages() -> Iterator[Finding]:
    """Packages that the graph imports beside torch. Each is probed alone, so that a broken one does not hide others."""
    for module, package in {"numpy": "numpy", "cv2": "opencv-python-headless", "zmq": "pyzmq", "msgspec": "msgspec",
                            "pydantic": "pydantic", "hdrh": "hdrhistogram"}.items():  # fmt: skip

        def probe(module: str = module, package: str = package) -> Iterator[Finding]:
            version = getattr(import_module(module), "__version__", None) or metadata.version(package)
            yield Finding("software", package, True, version, needed=True)

        yield from guarded("software", package, probe, f"pip install --force-reinstall {package}")


def _gpu() -> Iterator[Finding]:
    driver, models = _nvidia()
    if not driver:
        places = Path("/sys/bus/pci/devices").glob("*")
        kinds = [(read_file(place / "vendor").strip(), read_file(place / "class")) for place in places]
        card = any(vendor == "0x10de" and kind.startswith("0x03") for vendor, kind in kinds)
        detail = "an NVIDIA card is there, its driver is not" if card else "no NVIDIA GPU: networks run on the CPU"
        remedy = "sudo apt-get install nvidia-driver    (on Ubuntu: sudo ubuntu-drivers install)" if card else ""
        yield Finding("gpu", "NVIDIA driver", False, detail, remedy)
        return
    yield Finding("gpu", "NVIDIA driver", True, driver)
    if not models:
        yield Finding("gpu", "NVIDIA GPU", False, "none is visible", "in Docker: docker run --gpus all")
        return
    yield Finding("gpu", "NVIDIA GPU", True, ", ".join(models))
    yield from video_of_cards(models)
    torch = import_module("torch")
    from warpfuse.engine import device

    usable = device.count() if torch.version.cuda else 0  # asks the driver, creates no context
    remedy = "" if usable else "pip install --force-reinstall torch"
    why = "sees" if torch.version.cuda else "is built for the CPU and sees"
    yield Finding("gpu", "torch on CUDA", usable > 0, f"torch {why} {usable} of {len(models)}", remedy)
    from warpfuse.engine.cuda_kernels import lacking

    lack, _, cure = (lacking() or "").rpartition(". Install the compiler: ")
    yield Finding("gpu", "CUDA kernels", not lack, lack or "pictures are warped and fused by kernels of ours", cure)


def _nvidia() -> tuple[str, list[str]]:
    """Version of the driver, "" without one, and models of the GPUs."""
    version = re.search(r"\s(\d{3}\.[\d.]+)\s", read_file("/proc/driver/nvidia/version"))
    driver = version[1] if version else ""
    told = [re.search(r"Model:\s*(.+)", read_file(f)) for f in Path("/proc/driver/nvidia/gpus").glob("*/information")]
    models = [found[1].strip() for found in told if found]
    smi = shutil.which("nvidia-smi")
    if smi and not (driver and models):
        query = [smi, "--query-gpu=driver_version,name", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, timeout=1.5, check=False)
        if answer.returncode == 0:
            rows = [line.partition(", ") for line in answer.stdout.splitlines()]
            driver, models = rows[0][0] if rows else driver, [row[2] for row in rows]
    return driver, models


def _backends() -> Iterator[Finding]:
    from warpfuse.engine.open import backend_names, missing

    reasons = {name: missing(name) for name in backend_names()}
    for name, reason in reasons.items():
        version = installed_version(name, f"{name}-gpu", f"{name}-cu13", f"{name}-cu13-bindings") or ""
        lack, _, cure = (reason or "").partition(": ")
        detail = lack or f"{version}, runs on the CPU".lstrip(", ")
        yield Finding("networks", name, not lack, detail, cure, needed=None not in reasons.values())
        if Path("/proc/driver/nvidia").is_dir():
            lack, _, cure = (missing(name, "cuda:0") or "").partition(": ")
            detail = lack or f"{version}, runs on a GPU".lstrip(", ")
            yield Finding("networks", f"{name} on CUDA", not lack, detail, cure)
    if installed_version("onnxruntime") and installed_version("onnxruntime-gpu"):
        clash = "onnxruntime and onnxruntime-gpu are both installed: each overwrites files of the other"
        remedy = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
        yield Finding("networks", "one onnxruntime", False, clash, remedy, needed=True)


def _integers() -> Iterator[Finding]:
    """8-bit integers, if `--precision auto` selects them here."""
    from warpfuse.engine.precision import GAINING, cpu_flags, gains_by

    flag = gains_by(cpu_flags())
    detail = f"faster by {flag}" if flag else f"slower: the processor has none of {', '.join(GAINING)}"
    yield Finding("networks", "8-bit integers", flag is not None, detail)


def _plans() -> Iterator[Finding]:
    """TensorRT plans: whether they can be built here, and the cache."""
    from warpfuse.engine.artifacts import ArtifactCache
    from warpfuse.engine.tensorrt_module import TENSORRT_RTX, capabilities, not_installed

    lack, _, cure = (not_installed(TENSORRT_RTX) or "").partition(": ")
    detail = lack or f"for {', '.join(capabilities(TENSORRT_RTX))}, with or without a card here"
    yield Finding("networks", "tensorrt-rtx builds", not lack, detail, cure)
    cache = ArtifactCache()
    count, size = cache.contents()
    yield Finding("networks", "plan cache", True, f"{count} built, {size / 1e6:.1f} MB, {cache.folder}")


def _midi() -> Iterator[Finding]:
    from warpfuse.graph.errors import ConfigError
    from warpfuse.midi import port_names

    try:
        names = port_names()
    except ConfigError as error:
        lack, *cure = re.split(r": (?=pip |sudo )", str(error), maxsplit=1)
        yield Finding("live", "MIDI inputs", False, lack, cure[0] if cure else "")
        return
    yield Finding("live", "MIDI inputs", bool(names), ", ".join(names) or "none: plug a controller in")


def _shared_memory() -> Iterator[Finding]:
    usage = shutil.disk_usage("/dev/shm")
    enough = usage.free >= SHM_ENOUGH
    detail = f"{usage.free >> 20} of {usage.total >> 20} MiB free in /dev/shm, {SHM_ENOUGH >> 20} are enough"
    remedy = "" if enough else "sudo mount -o remount,size=1G /dev/shm    (in Docker: docker run --shm-size=1g)"
    yield Finding("machine", "shared memory", enough, detail, remedy)


def _machine() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding("machine", "cores", True, f"{cores} usable of {os.cpu_count()}")
    memory = import_module("psutil").virtual_memory()
    limit = read_file("/sys/fs/cgroup/memory.max").strip()
    total = min(memory.total, int(limit)) if limit.isdigit() else memory.total
    free = min(memory.available, total)
    detail = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB available, {MEMORY_ENOUGH >> 30} are enough"
    yield Finding("machine", "memory", free >= MEMORY_ENOUGH, detail)


def _bundles() -> Iterator[Finding]:
    from warpfuse.engine.bundle import find_bundles, read_description
    from warpfuse.engine.bundle_file import BundleFile

    bundles = find_bundles()
    if "embedded" not in bundles:
        remedy = "pip install --force-reinstall --no-deps warpfuse"
        yield Finding("bundles", "embedded", False, "the bundle of the package is not there", remedy)
    for name, folder in bundles.items():

        def probe(name: str = name, folder: Path = folder) -> Iterator[Finding]:
            about = read_description(folder)
            size = sum((folder / file).stat().st_size for file in about.files)  # raises for one that is missing
            styles = f", {len(about.styles)} styles" if isinstance(about, BundleFile) and about.styles else ""
            detail = f"{about.kind}{styles}, {size / 1e6:.1f} MB, {folder}"
            yield Finding("bundles", name, True, detail)

        yield from guarded("bundles", name, probe)


PROBES: tuple[tuple[str, str, Probe, str], ...] = (
    ("software", "python", _python, ""),
    ("software", "warpfuse", _warpfuse, "pip install --force-reinstall --no-deps warpfuse"),
    ("software", "torch", _torch, "pip install --force-reinstall torch"),
    ("software", "packages", _packages, ""),
    ("gpu", "NVIDIA driver", _gpu, ""),
    ("networks", "backends", _backends, "pip install --force-reinstall 'warpfuse[cpu]'"),
    ("networks", "8-bit integers", _integers, ""),
    ("networks", "plans", _plans, ""),
    ("video", "PyAV", video, "pip install --force-reinstall av"),
    ("video", "ffmpeg program", ffmpeg, ""),
    ("cameras", "virtual camera", virtual_cameras, ""),
    ("sharing", "other programs", sharing, ""),
    ("live", "MIDI inputs", _midi, "pip install --force-reinstall 'warpfuse[midi]'"),
    ("machine", "shared memory", _shared_memory, ""),
    ("machine", "cores and memory", _machine, ""),
    ("bundles", "bundles", _bundles, ""),
)


def installed_version(*distributions: str) -> str | None:
    """Version of the first of these distributions that is installed; None: none is."""
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def read_file(path: str | Path) -> str:
    """The text of a file of /proc or /sys; "" if it is missing."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
