"""Small clips in many containers, and damaged variants of them: the same seed and number give the same bytes."""

import io
import struct
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
import numpy as np

Random = np.random.Generator

SEEDS: dict[str, tuple[str, str, str | None, dict[str, str]]] = {
    # name: muxer, codec of the picture, of the sound, options of the muxer
    "clip.mp4": ("mp4", "libx264", "aac", {}),
    "fragments.mov": ("mov", "libx264", "pcm_s16le", {"movflags": "frag_keyframe+empty_moov"}),
    "clip.mkv": ("matroska", "libx264", "flac", {}),
    "clip.webm": ("webm", "libvpx-vp9", "libopus", {}),
    "clip.avi": ("avi", "mjpeg", "pcm_s16le", {}),
    "clip.ts": ("mpegts", "libx264", "aac", {}),
    "clip.flv": ("flv", "flv", "libmp3lame", {}),
    "clip.ogv": ("ogg", "libvpx", "libopus", {}),
    "clip.mpg": ("mpeg", "mpeg1video", "mp2", {}),
    "clip.gif": ("gif", "gif", None, {}),
    "clip.asf": ("asf", "mpeg4", "wmav2", {}),
    "still.jpg": ("image2pipe", "mjpeg", None, {}),
}
_PIXELS = {"mjpeg": "yuvj420p", "gif": "rgb8"}
_SIZE, _FRAMES, _RATE = (64, 48), 12, 48_000
_UNITS = {"clip.ts": 188, "clip.mpg": 2048}  # bytes of a packet of the container
_MARKS = {"clip.ogv": b"OggS", "clip.avi": b"00dc", "clip.mkv": b"\xa3", "clip.webm": b"\xa3", "still.jpg": b"\xff"}
_BOXES = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"udta", b"edts")
_EXTREMES = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFF0)


def seeds() -> dict[str, bytes]:
    """The whole clips, by name; without those that this FFmpeg cannot make."""
    made = {}
    for name, (muxer, picture, sound, options) in SEEDS.items():
        if {picture, sound or picture} <= av.codecs_available:
            made[name] = _clip(muxer, picture, sound, options)
    return made


def variant(name: str, whole: bytes, number: int, seed: int = 0) -> bytes:
    """The clip with one to three kinds of damage."""
    random = np.random.default_rng([seed, number, *name.encode()])
    data = bytearray(whole)
    for _ in range(random.integers(1, 4)):
        if len(data) < 16:
            break
        kinds = [_flipped, _flipped, _overwritten, _cut, _without, _repeated, _swapped, _extreme, _units_swapped]
        data = kinds[random.integers(len(kinds))](name, data, random)
    return bytes(data)


def _clip(muxer: str, picture: str, sound: str | None, options: dict[str, str]) -> bytes:
    held = io.BytesIO()
    with av.open(held, "w", format=muxer, container_options=options) as out:
        video: Any = out.add_stream(picture, rate=25, options={"g": "4", "bf": "2"} if picture == "libx264" else {})
        context = video.codec_context
        context.width, context.height = _SIZE
        context.pix_fmt = _PIXELS.get(picture, "yuv420p")
        audio: Any = out.add_stream(sound, rate=_RATE) if sound else None
        if audio is not None:
            audio.codec_context.layout = "mono"
            audio.codec_context.bit_rate = 64_000
        for index in range(1 if muxer == "image2pipe" else _FRAMES):
            rgb = np.full((_SIZE[1], _SIZE[0], 3), 40, np.uint8)
            rgb[:, index * 5 : index * 5 + 8] = (200, 90, 20 * index)
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=context.pix_fmt)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            out.mux(video.encode(frame))
            if audio is not None:
                wave = np.sin(np.arange(_RATE // 25) * 0.05)[None].astype(np.float32)
                heard = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
                heard.sample_rate, heard.pts, heard.time_base = _RATE, index * (_RATE // 25), Fraction(1, _RATE)
                out.mux(audio.encode(heard))
        for stream in filter(None, (video, audio)):
            out.mux(stream.encode(None))
    return held.getvalue()


def _place(data: bytearray, random: Random) -> int:
    """Anywhere, but half of the time where headers are: within the first or the last kilobyte."""
    size = len(data)
    if random.random() < 0.5:
        return int(random.integers(size))
    near = int(random.integers(min(size, 1024)))
    return near if random.random() < 0.5 else size - 1 - near


def _stretch(data: bytearray, random: Random) -> slice:
    start = _place(data, random)
    return slice(start, start + int(2 ** random.uniform(0, 11)))


def _flipped(name: str, data: bytearray, random: Random) -> bytearray:
    for _ in range(int(2 ** random.uniform(0, 6))):
        data[_place(data, random)] ^= 1 << int(random.integers(8))
    return data


def _overwritten(name: str, data: bytearray, random: Random) -> bytearray:
    at = _stretch(data, random)
    size = len(data[at])
    data[at] = [bytes(size), b"\xff" * size, random.bytes(size)][random.integers(3)]
    return data


def _cut(name: str, data: bytearray, random: Random) -> bytearray:
    return data[: int(random.integers(1, len(data)))]


def _without(name: str, data: bytearray, random: Random) -> bytearray:
    del data[_stretch(data, random)]
    return data


def _repeated(name: str, data: bytearray, random: Random) -> bytearray:
    at = _stretch(data, random)
    data[at.start : at.start] = data[at] * int(random.integers(1, 5))
    return data


def _swapped(name: str, data: bytearray, random: Random) -> bytearray:
    one, other = _stretch(data, random), _stretch(data, random)
    data[one], data[other] = data[other], data[one]
    return data


def _extreme(name: str, data: bytearray, random: Random) -> bytearray:
    """A number of 16 or 32 bits becomes the least or the greatest."""
    at = min(_place(data, random), len(data) - 4)
    value = _EXTREMES[random.integers(len(_EXTREMES))]
    kind = ("<I", ">I", "<H", ">H")[random.integers(4)]
    struct.pack_into(kind, data, at, value & (0xFFFFFFFF if kind[1] == "I" else 0xFFFF))
    return data


def _units_swapped(name: str, data: bytearray, random: Random) -> bytearray:
    """Two boxes, packets, pages or chunks change places; one is doubled or goes, now and then."""
    units = _units(name, bytes(data))
    if len(units) < 2:
        return _swapped(name, data, random)
    one, other = (int(random.integers(len(units))) for _ in range(2))
    deed: Callable[[], None] = [
        lambda: units.__setitem__(slice(None), [units[{one: other, other: one}.get(k, k)] for k in range(len(units))]),
        lambda: units.insert(one, units[other]),
        lambda: units.pop(one) and None,
    ][random.integers(3)]
    deed()
    return bytearray(b"".join(units))


def _units(name: str, data: bytes) -> list[bytes]:
    if name in _UNITS:
        return [data[at : at + _UNITS[name]] for at in range(0, len(data), _UNITS[name])]
    if name.endswith(("mp4", "mov")):
        return _boxes(data)
    mark = _MARKS.get(name)
    parts = data.split(mark) if mark else [data]
    return [parts[0], *(mark + part for part in parts[1:])] if mark else parts


def _boxes(data: bytes) -> list[bytes]:
    """The boxes, those that hold others opened."""
    units, at = [], 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        size = 8 if kind in _BOXES else min(max(size, 8), len(data) - at)
        units.append(data[at : at + size])
        at += size
    return [*units, data[at:]]
