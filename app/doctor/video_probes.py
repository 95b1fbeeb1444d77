"""The doctor's probes for video: codecs, protocols, virtual cameras."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from warpfuse.doctor.finding import Finding


def video() -> Iterator[Finding]:
    """PyAV, and the codecs and protocols of its FFmpeg."""
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
        # In FFmpeg RTSP is a format and the others are protocols; its format "srt" is for SubRip subtitles.
        found = protocol in av.formats_available if protocol == "rtsp" else speaks(av, protocol)
        served = "" if _served("sources", protocol) else "; this version does not open such sources yet"
        detail = ("in these FFmpeg libraries" if found else "not in these FFmpeg libraries") + served
        remedy = "" if found else f"build PyAV on an FFmpeg that has {protocol}: pip install --no-binary av av"
        if protocol == "srt" and not found:  # PyAV's wheels lack SRT; the program ffmpeg is used instead
            found = program_speaks(protocol)
            detail = "by the ffmpeg program" if found else "neither in these FFmpeg libraries nor in an ffmpeg program"
            remedy = "" if found else "sudo apt-get install ffmpeg"
        yield Finding("video", f"{protocol}://", found, detail, remedy)


_WITHOUT_NVENC = re.compile(r"\b(A30|A100|A800|H\d{2,3}|GH200|B[1-3]00|GB[23]00)\b")


def video_of_cards(models: list[str]) -> Iterator[Finding]:
    """Decoding and encoding of video on NVIDIA cards of these models. No decoder or encoder is opened."""
    decodes = "cuda" in import_module("av.codec.hwaccel").hwdevices_available()
    detail = "decoder=card, for files; untried" if decodes else "these FFmpeg libraries know no card"
    yield Finding("gpu", "decoding video (NVDEC)", decodes, detail)
    without = [model for model in models if _WITHOUT_NVENC.search(model)]
    try:
        import_module("av").Codec("h264_nvenc", "w")
        encodes, detail = len(without) < len(models), "#codec=h264_nvenc, for live sinks; untried"
    except ValueError:
        encodes, detail = False, "not in these FFmpeg libraries"
    if without:
        detail = f"{', '.join(sorted(set(without)))} has no encoder: video is encoded on the CPU"
    yield Finding("gpu", "encoding video (NVENC)", encodes, detail)


def ffmpeg() -> Iterator[Finding]:
    """The program ffmpeg."""
    place = shutil.which("ffmpeg")
    detail = place or "not installed; only srt:// needs it"
    yield Finding("video", "ffmpeg program", place is not None, detail, "" if place else "sudo apt-get install ffmpeg")


def virtual_cameras() -> Iterator[Finding]:
    """Video devices and virtual cameras."""
    if sys.platform != "linux":
        yield from _cameras_elsewhere()
        return
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


def sharing() -> Iterator[Finding]:
    """What shares pictures with other programs: NDI anywhere, Spout on Windows, Syphon on macOS."""
    ways = (
        ("NDI", "cyndilib", "", "ndi"),
        ("Spout", "SpoutGL", "win32", "spout"),
        ("Syphon", "syphon", "darwin", "syphon"),
    )
    systems = {"win32": "Windows", "darwin": "macOS"}
    for name, module, system, extra in ways:
        if system and sys.platform != system:
            yield Finding("sharing", name, False, f"for {systems[system]} alone")
            continue
        try:
            import_module(module)
            yield Finding("sharing", name, True, f"{extra}:NAME as a {'sink and source' if extra == 'ndi' else 'sink'}")
        except ModuleNotFoundError:
            yield Finding("sharing", name, False, "not installed", f"pip install 'warpfuse[{extra}]'")


def _cameras_elsewhere() -> Iterator[Finding]:
    from warpfuse.doctor.cameras import cameras

    found = cameras()
    problems = "; ".join(camera.problem for camera in found if camera.problem)
    listed = ", ".join(camera.device.card for camera in found if not camera.problem)
    yield Finding("cameras", "cameras", bool(listed), listed or problems or "none: plug one in")
    try:
        virtual = import_module("pyvirtualcam").__version__
    except ImportError:
        virtual = ""
    remedy = "" if virtual else "pip install 'warpfuse[virtualcam]'"
    yield Finding("cameras", "virtual camera", bool(virtual), f"pyvirtualcam {virtual}" if virtual else "none", remedy)


def speaks(av: Any, protocol: str, place: str = "127.0.0.1:9") -> bool:
    """PyAV's FFmpeg has a protocol. The whitelist prevents a connection; FFmpeg looks the protocol up before."""
    errors = import_module("av.error")
    try:
        av.open(f"{protocol}://{place}", options={"protocol_whitelist": "none"})
    except errors.ProtocolNotFoundError:
        return False
    except (errors.FFmpegError, ValueError, OSError):
        pass
    return True


def program_speaks(protocol: str) -> bool:
    """There is a program ffmpeg, and it has a protocol."""
    place = shutil.which("ffmpeg")
    if place is None:
        return False
    told = subprocess.run([place, "-hide_banner", "-protocols"], capture_output=True, text=True, timeout=5, check=False)
    return protocol in told.stdout.split()


def _served(kind: str, scheme: str) -> bool:
    """A module of stages/sources or stages/sinks (`kind`) has this scheme."""
    from warpfuse.stages.sources.schemes import modules

    return any(scheme in module.SCHEMES for module in modules(import_module(f"warpfuse.stages.{kind}")))
