"""Law: pictures and the sound beside them lie where the program ffmpeg puts them, within a frame."""

import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
from support import servers

from warpfuse.stages.sinks import open_sink
from warpfuse.stages.sources import open_source

PICTURE = "-f lavfi -i testsrc2=s=64x48:r=25:d=2"
SOUND = "-f lavfi -i sine=d=2"
H264 = "-c:v libx264 -g 10 -bf 2 -pix_fmt yuv420p -c:a aac"
FRAME = 0.04
WITHIN = FRAME + 0.001
MADE = {
    "a.ts": f"{PICTURE} {SOUND} {H264}",
    "a.mp4": f"{PICTURE} {SOUND} {H264}",
    "hour.ts": "-i a.ts -c copy -output_ts_offset 3600",
    "five.ts": "-i a.ts -c copy -output_ts_offset 5",
    "overlapping.ts": "-i a.ts -c copy -output_ts_offset 1.5",
    "wraps.ts": "-i a.ts -c copy -muxdelay 0 -output_ts_offset 95441.8",  # 2^33 ticks are 95443.7 s
    "sound_late.ts": "-i a.ts -itsoffset 0.7 -i a.ts -map 0:v -map 1:a -c copy",
    "picture_late.ts": "-itsoffset 0.7 -i a.ts -i a.ts -map 0:v -map 1:a -c copy",
    "sound_jumps.ts": "-i a.ts -c copy -bsf:a setts=ts=TS+if(gte(N\\,40)\\,9000000\\,0)",
    "edited.mp4": "-ss 0.52 -i a.mp4 -c copy",
    "sound_delayed.mov": "-i a.mp4 -itsoffset 0.5 -i a.mp4 -map 0:v -map 1:a -c copy",
    "picture_delayed.mov": "-itsoffset 0.5 -i a.mp4 -i a.mp4 -map 0:v -map 1:a -c copy",
    "late.mkv": "-i a.mp4 -c copy -output_ts_offset 2",
    "fragments.mp4": "-i a.mp4 -c copy -movflags frag_keyframe+empty_moov+default_base_moof -output_ts_offset 100",
    "b_frames.avi": f"{PICTURE} {SOUND} -c:v libx264 -bf 2 -c:a libmp3lame",
    "b_frames.flv": f"{PICTURE} {SOUND} {H264}",
    "packed.avi": f"{PICTURE} {SOUND} -c:v mpeg4 -bf 2 -c:a libmp3lame",
    "a.mpg": f"{PICTURE} {SOUND} -c:v mpeg2video -bf 2 -c:a mp2",
    "uneven.mkv": "-i a.mp4 -vf select='not(mod(n\\,3))' -vsync vfr -c:v libx264 -c:a copy",
}
JOINED = {
    "again.ts": ("a.ts", "a.ts"),
    "later.ts": ("a.ts", "hour.ts"),
    "earlier.ts": ("hour.ts", "a.ts"),
    "there_and_back.ts": ("a.ts", "hour.ts", "a.ts"),
    "gap.ts": ("a.ts", "five.ts"),
    "overlap.ts": ("a.ts", "overlapping.ts"),
    "again.mpg": ("a.mpg", "a.mpg"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ffmpeg, folder = servers.need_ffmpeg(), tmp_path_factory.mktemp("times")
    for name, how in MADE.items():
        command = [ffmpeg, "-nostdin", "-loglevel", "error", *how.split(), name]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    for name, parts in JOINED.items():
        (folder / name).write_bytes(b"".join((folder / part).read_bytes() for part in parts))
    return folder


def by_ffmpeg(path: Path) -> tuple[list[float], list[float]]:
    """Seconds of the pictures and of the packets of sound, as the program gives them with its defaults."""
    command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-i", str(path), "-map", "0:v:0", "-map", "0:a:0"]
    told = subprocess.run([*command, "-c:a", "copy", "-f", "framecrc", "-"], capture_output=True, text=True, check=True)
    ticks: dict[int, float] = {}
    times: tuple[list[float], list[float]] = ([], [])
    for line in told.stdout.splitlines():
        if line.startswith("#tb"):
            index, _, tick = line.removeprefix("#tb").partition(":")
            over, under = tick.split("/")
            ticks[int(index)] = int(over) / int(under)
        elif not line.startswith("#"):
            index, _, pts = line.split(",")[:3]
            times[int(index)].append(int(pts) * ticks[int(index)])
    return times


def by_us(path: Path) -> tuple[list[float], list[float], str | None]:
    """The same of a file made of it, and what was said."""
    source = open_source(str(path))
    out = path.with_name(f"{path.name}.out.mp4")
    sink: Any = open_sink(str(out), source.info, (64, 48), sound_from=str(path))
    for frame in iter(source.read, None):
        sink.write(frame)
    source.close()
    sink.close(True)
    with av.open(str(out)) as opened:
        pictures = [float(frame.time) for frame in opened.decode(video=0)]
    with av.open(str(out)) as opened:
        sound = [float(packet.pts * packet.time_base) for packet in opened.demux(audio=0) if packet.size]
    return pictures, sound, source.warning


@pytest.mark.parametrize("name", [*MADE, *JOINED])
def test_pictures_and_sound_lie_where_ffmpeg_puts_them(folder: Path, name: str):
    right, right_sound = by_ffmpeg(folder / name)
    pictures, sound, warning = by_us(folder / name)
    assert pictures[-1] - pictures[0] == pytest.approx(right[-1] - right[0], abs=WITHIN)
    assert len(pictures) == pytest.approx(len(right), abs=1)
    longest, right_longest = (max(after - before for before, after in pairwise(told)) for told in (pictures, right))
    assert longest == pytest.approx(right_longest, abs=WITHIN)
    length = right[-1] - right[0] + FRAME
    beside = [at - right[0] for at in right_sound if -FRAME / 2 <= at - right[0] < length]
    ours = [at - pictures[0] for at in sound if at - pictures[0] >= -FRAME / 2]
    assert ours[0] == pytest.approx(beside[0], abs=WITHIN) and ours[-1] == pytest.approx(beside[-1], abs=WITHIN)
    jumps = (name in JOINED and name != "gap.ts") or name == "sound_jumps.ts"
    assert ("jumps" in (warning or "")) == jumps
