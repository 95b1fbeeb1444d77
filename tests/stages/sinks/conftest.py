import subprocess
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.stage import VideoInfo

SIZE = (64, 48)
INFO = VideoInfo(*SIZE, Fraction(25), Fraction(1, 25))


def frames(count: int, pts_ns: list[int] | None = None) -> list[RawFrame]:
    """Flat grey pictures, each a little lighter than the last, 40 ms apart unless `pts_ns` says otherwise."""
    width, height = SIZE
    told = pts_ns or [i * 40_000_000 for i in range(count)]
    return [RawFrame(Stamp(i, told[i]), np.full((height, width, 3), i * 3 % 256, np.uint8)) for i in range(count)]


def noisy(count: int) -> list[RawFrame]:
    noise = np.random.default_rng(0).integers(0, 256, (count, SIZE[1], SIZE[0], 3), np.uint8)
    return [RawFrame(Stamp(i, i * 40_000_000), noise[i]) for i in range(count)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("a file system of 64 kB cannot be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.fixture
def make_sounding(tmp_path: Path) -> Callable[..., Path]:
    """A clip with a picture from `picture_at` seconds on, and silence with a click every second from `sound_at` on."""

    def make(
        name: str,
        codec: str = "aac",
        seconds: float = 4,
        picture_at: float = 0,
        sound_at: float = 0,
        tracks: int = 1,
        picture: bool = True,
        rate: int = 48000,
    ) -> Path:
        if codec not in av.codecs_available:
            pytest.skip(f"this FFmpeg has no encoder {codec}")
        path = tmp_path / name
        with av.open(str(path), "w") as out:
            video: Any = None
            if picture:
                video = out.add_stream("mpeg4" if name.endswith(("avi", "ts", "wmv")) else "libx264", rate=25)
                video.codec_context.width, video.codec_context.height = SIZE
                video.codec_context.pix_fmt = "yuv420p"
                video.codec_context.time_base = Fraction(1, 25)
            audio: list[Any] = []
            for number in range(tracks):
                audio.append(out.add_stream(codec, rate=rate))
                audio[-1].codec_context.layout = "mono"
                audio[-1].codec_context.bit_rate = 128_000
                audio[-1].metadata["language"] = ("eng", "deu", "fra")[number]
            samples = np.zeros(int(seconds * rate), np.float32)
            for second in range(int(seconds)):
                at = second * rate + rate // 2
                samples[at : at + rate // 100] = np.sin(np.arange(rate // 100) * 0.6) * 0.9
            step = rate // 25
            for index in range(int(seconds * 25)):
                if video is not None:
                    frame = av.VideoFrame.from_ndarray(np.full((SIZE[1], SIZE[0], 3), index * 2 % 256, np.uint8))
                    frame.pts, frame.time_base = index + round(picture_at * 25), Fraction(1, 25)
                    out.mux(video.encode(frame))
                for track in audio:
                    piece = samples[None, index * step : (index + 1) * step]
                    sound = av.AudioFrame.from_ndarray(piece.copy(), format="fltp", layout="mono")
                    sound.sample_rate, sound.time_base = rate, Fraction(1, rate)
                    sound.pts = index * step + round(sound_at * rate)
                    out.mux(track.encode(sound))
            for stream in [*audio, *([video] if video is not None else [])]:
                out.mux(stream.encode(None))
        return path

    return make


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def heard(path: Path, track: int = 0) -> tuple[Any, float]:
    """(mono samples float32, seconds of the first one on the container's clock)."""
    pieces, first, rate = [], None, 0
    with av.open(str(path)) as opened:
        resampler = av.AudioResampler(format="fltp", layout="mono")
        for frame in opened.decode(opened.streams.audio[track]):
            if first is None:
                first, rate = frame.time, frame.sample_rate
            pieces += [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
    assert first is not None
    assert rate
    return np.concatenate(pieces), first


def clicks(path: Path, track: int = 0) -> list[float]:
    """Start times of the clicks in seconds, on the container's clock."""
    samples, first = heard(path, track)
    with av.open(str(path)) as opened:
        rate = opened.streams.audio[track].codec_context.sample_rate
    loud = np.nonzero(np.abs(samples) > 0.3)[0]
    starts = loud[np.concatenate([[True], np.diff(loud) > rate // 4])] if len(loud) else []
    return [first + float(start) / rate for start in starts]


def packets(path: Path, track: int = 0) -> list[bytes]:
    with av.open(str(path)) as opened:
        return [bytes(packet) for packet in opened.demux(opened.streams.audio[track]) if packet.size]
