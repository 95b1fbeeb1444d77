"""The questions the doctor asks of a machine.

Every probe imports what it needs by itself and is guarded: a broken package is a finding, not a traceback.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

PYTHONS = (3, 11), (3, 13)
"""The oldest and newest Python that is supported, as `requires-python` of the package says."""

SHM_ENOUGH = 256 << 20  # the slots of a whole 1080p graph; containers often have 64 MiB in all
MEMORY_ENOUGH = 2 << 30
_NO_MARKS = str.maketrans({"\x1b": "", "\n": " ", "\r": " "})


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination.

    found   the machine has it, and it can be used
    detail  version, place, or why not
    remedy  the command that brings it; empty when found, or when only other hardware would help
    needed  nothing runs without it
    """

    group: str
    name: str
    found: bool
    detail: str
    remedy: str = ""
    needed: bool = False


Probe = Callable[[], Iterator[Finding]]


def guarded(group: str, name: str, probe: Probe, remedy: str = "") -> list[Finding]:
    """The findings of a probe; if it breaks, those until then and one that gives the reason and `remedy`."""
    findings: list[Finding] = []
    try:
        for finding in probe():
            findings.append(finding)
    except Exception as error:  # noqa: BLE001  (a doctor that falls ill tells why and goes on)
        reason = f"cannot be examined: {type(error).__name__}: {error}".translate(_NO_MARKS)
        findings.append(Finding(group, name, False, reason, remedy, needed=bool(remedy)))
    return findings


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
    """What the graph imports beside torch; each alone, for one broken package shall not hide another."""
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
        card = any(_read(p / "vendor").strip() == "0x10de" and _read(p / "class").startswith("0x03") for p in places)
        detail = "an NVIDIA card is there, its driver is not" if card else "no NVIDIA GPU: networks run on the CPU"
        remedy = "sudo apt-get install nvidia-driver    (on Ubuntu: sudo ubuntu-drivers install)" if card else ""
        yield Finding("gpu", "NVIDIA driver", False, detail, remedy)
        return
    yield Finding("gpu", "NVIDIA driver", True, driver)
    if not models:
        yield Finding("gpu", "NVIDIA GPU", False, "none is visible", "in Docker: docker run --gpus all")
        return
    yield Finding("gpu", "NVIDIA GPU", True, ", ".join(models))
    torch = import_module("torch")
    usable = torch.cuda.device_count() if torch.version.cuda else 0  # asks the driver, makes no context
    remedy = "" if usable else "pip install --force-reinstall torch"
    why = "sees" if torch.version.cuda else "is built for the CPU and sees"
    yield Finding("gpu", "torch on CUDA", usable > 0, f"torch {why} {usable} of {len(models)}", remedy)


def _nvidia() -> tuple[str, list[str]]:
    """The driver's version, empty without one, and the models of the GPUs."""
    version = re.search(r"\s(\d{3}\.[\d.]+)\s", _read("/proc/driver/nvidia/version"))
    driver = version[1] if version else ""
    told = [re.search(r"Model:\s*(.+)", _read(f)) for f in Path("/proc/driver/nvidia/gpus").glob("*/information")]
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
        version = _version(name, f"{name}-gpu", f"{name}-cu13", f"{name}-cu13-bindings") or ""
        lack, _, cure = (reason or "").partition(": ")
        detail = lack or f"{version}, runs on the CPU".lstrip(", ")
        yield Finding("networks", name, not lack, detail, cure, needed=None not in reasons.values())
        if Path("/proc/driver/nvidia").is_dir():
            lack, _, cure = (missing(name, "cuda:0") or "").partition(": ")
            detail = lack or f"{version}, runs on a GPU".lstrip(", ")
            yield Finding("networks", f"{name} on CUDA", not lack, detail, cure)
    if _version("onnxruntime") and _version("onnxruntime-gpu"):
        clash = "onnxruntime and onnxruntime-gpu are both installed: each overwrites files of the other"
        remedy = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
        yield Finding("networks", "one onnxruntime", False, clash, remedy, needed=True)


def _plans() -> Iterator[Finding]:
    """What is built here, and what was."""
    from warpfuse.engine.artifacts import ArtifactCache
    from warpfuse.engine.tensorrt_module import TENSORRT_RTX, capabilities, not_installed

    lack, _, cure = (not_installed(TENSORRT_RTX) or "").partition(": ")
    detail = lack or f"for {', '.join(capabilities(TENSORRT_RTX))}, with or without a card here"
    yield Finding("networks", "tensorrt-rtx builds", not lack, detail, cure)
    cache = ArtifactCache()
    count, size = cache.contents()
    yield Finding("networks", "plan cache", True, f"{count} built, {size / 1e6:.1f} MB, {cache.folder}")


def _video() -> Iterator[Finding]:
    av = import_module("av")
    ffmpeg = ".".join(map(str, av.library_versions["libavcodec"]))
    yield Finding("video", "PyAV", True, f"{av.__version__}, libavcodec {ffmpeg}", needed=True)
    wanted = [("libx264", "w"), ("aac", "w"), ("h264", "r"), ("hevc", "r"), ("vp9", "r"), ("av1", "r"), ("aac", "r")]
    for codec, mode in wanted:
        try:
            found, detail = True, av.Codec(codec, mode).long_name
        except ValueError:
            found, detail = False, "not in these FFmpeg libraries"
        remedy = "" if found else "pip install --force-reinstall --only-binary av av"
        does = "encoding" if mode == "w" else "decoding"
        yield Finding("video", f"{codec} {does}", found, detail, remedy, needed=codec in ("libx264", "h264"))
    for protocol in ("rtsp", "rtmp", "srt"):
        # RTSP is a format to FFmpeg, the others are protocols; its format "srt" is SubRip's subtitles.
        found = protocol in av.formats_available if protocol == "rtsp" else _speaks(av, protocol)
        served = "" if _served("sources", protocol) else "; this version does not open such sources yet"
        detail = ("in these FFmpeg libraries" if found else "not in these FFmpeg libraries") + served
        remedy = "" if found else f"build PyAV on an FFmpeg that has {protocol}: pip install --no-binary av av"
        if protocol == "srt" and not found:  # the wheels have none; the program takes its place
            found = _program_speaks(protocol)
            detail = "by the ffmpeg program" if found else "neither in these FFmpeg libraries nor in an ffmpeg program"
            remedy = "" if found else "sudo apt-get install ffmpeg"
        yield Finding("video", f"{protocol}://", found, detail, remedy)


def _ffmpeg() -> Iterator[Finding]:
    place = shutil.which("ffmpeg")
    detail = place or "not installed; only srt:// needs it"
    yield Finding("video", "ffmpeg program", place is not None, detail, "" if place else "sudo apt-get install ffmpeg")


def _virtual_cameras() -> Iterator[Finding]:
    devices = sorted(Path("/dev").glob("video*"))
    listed = ", ".join(str(device) for device in devices)
    yield Finding("cameras", "video devices", bool(devices), listed or "no /dev/video*: plug a camera in")
    loaded = Path("/sys/module/v4l2loopback").is_dir()
    made = [d for d in devices if Path(f"/sys/devices/virtual/video4linux/{d.name}").is_dir()]
    detail = ", ".join(map(str, made)) if loaded and made else "module v4l2loopback has no device"
    detail = detail if loaded else "module v4l2loopback is not loaded"
    served = "" if _served("sinks", "virtualcam") else "; this version does not write to virtual cameras yet"
    make = "sudo modprobe v4l2loopback exclusive_caps=1 card_label=warpfuse"
    remedy = "" if loaded and made else f"sudo apt-get install v4l2loopback-dkms && {make}"
    yield Finding("cameras", "virtual camera", loaded and bool(made), detail + served, remedy)


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
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    total = min(memory.total, int(limit)) if limit.isdigit() else memory.total
    free = min(memory.available, total)
    detail = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB available, {MEMORY_ENOUGH >> 30} are enough"
    yield Finding("machine", "memory", free >= MEMORY_ENOUGH, detail)


def _bundles() -> Iterator[Finding]:
    from warpfuse.engine.bundle import BundleFile, find_bundles, read_description

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
    ("networks", "plans", _plans, ""),
    ("video", "PyAV", _video, "pip install --force-reinstall av"),
    ("video", "ffmpeg program", _ffmpeg, ""),
    ("cameras", "virtual camera", _virtual_cameras, ""),
    ("machine", "shared memory", _shared_memory, ""),
    ("machine", "cores and memory", _machine, ""),
    ("bundles", "bundles", _bundles, ""),
)


def _version(*distributions: str) -> str | None:
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _speaks(av: Any, protocol: str, place: str = "127.0.0.1:9") -> bool:
    """Whether FFmpeg has a protocol. It looks it up before it asks the whitelist, which holds the connection off."""
    errors = import_module("av.error")
    try:
        av.open(f"{protocol}://{place}", options={"protocol_whitelist": "none"})
    except errors.ProtocolNotFoundError:
        return False
    except (errors.FFmpegError, ValueError, OSError):
        pass
    return True


def _program_speaks(protocol: str) -> bool:
    """Whether there is an ffmpeg program that has a protocol."""
    place = shutil.which("ffmpeg")
    if place is None:
        return False
    told = subprocess.run([place, "-hide_banner", "-protocols"], capture_output=True, text=True, timeout=5, check=False)
    return protocol in told.stdout.split()


def _served(kind: str, scheme: str) -> bool:
    """Whether a module of stages/sources or stages/sinks takes this scheme."""
    from warpfuse.stages.sources.schemes import modules

    return any(scheme in module.SCHEMES for module in modules(import_module(f"warpfuse.stages.{kind}")))


def _read(path: str | Path) -> str:
    """The text of a file of /proc or /sys, empty where there is none."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
