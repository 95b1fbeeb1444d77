"""HTTP sources over a real server: MJPEG, HLS while it grows, a clip; and an answer that is no video."""

import time
from fractions import Fraction
from itertools import pairwise

import av
import cv2
import numpy as np
import pytest
from support import servers

from warpfuse.stages.errors import SourceLost
from warpfuse.stages.sources import open_source, probe
from warpfuse.stages.sources.connection import Patience

from .conftest import counted, exif, number_in

HASTY = Patience(first=5.0, stall=0.5, silence=2.0, least=0.02, most=0.05, total=60.0)


@pytest.fixture
def web(tmp_path):
    web = servers.Web(tmp_path)
    yield web
    web.close()


def test_mjpeg_shows_what_the_camera_sends(web):
    colour = np.empty((48, 64, 3), np.uint8)
    colour[:] = servers.COLOURS["blue"]
    web.pictures = [cv2.imencode(".jpg", colour[..., ::-1])[1].tobytes()]
    source = open_source(f"{web.url}/video.mjpg")
    frames = [source.read() for _ in range(10)]
    source.close()
    assert source.info.live and (source.info.width, source.info.height) == (64, 48)
    assert all(np.abs(frame.rgb.reshape(-1, 3).mean(0) - servers.COLOURS["blue"]).max() < 6 for frame in frames)
    assert all(later.stamp.pts_ns > sooner.stamp.pts_ns for sooner, later in pairwise(frames))


def test_a_camera_that_changes_its_size_in_mid_stream_keeps_the_size_of_its_frames(web):
    def jpeg(width, height, colour):
        return cv2.imencode(".jpg", np.full((height, width, 3), servers.COLOURS[colour][::-1], np.uint8))[1].tobytes()

    web.pictures = [jpeg(64, 48, "blue")] * 3 + [jpeg(200, 40, "red")] * 3
    source = open_source(f"{web.url}/video.mjpg")
    seen, size = set(), (source.info.height, source.info.width, 3)
    deadline = time.monotonic() + 60
    while len(seen) < 2:
        assert time.monotonic() < deadline
        frame = source.read()
        assert frame.rgb.shape == size and not frame.stamp.discontinuity, "another size is no other connection"
        mean = frame.rgb.reshape(-1, 3).mean(0)
        (name,) = (name for name, colour in servers.COLOURS.items() if np.abs(mean - colour).max() < 12)
        seen.add(name)
    source.close()


def test_a_token_is_sent_and_never_shown_and_a_wrong_one_ends_it(web):
    web.token, web.pictures = "S3CRET-t0ken", [cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()]
    source = open_source(f"{web.url}/video.mjpg?token=S3CRET-t0ken")
    assert source.read() is not None and "S3CRET" not in " ".join(source.news())
    source.close()
    with pytest.raises(SourceLost, match="password was refused") as refused:
        open_source(f"{web.url}/video.mjpg?token=Wr0ng-t0ken", patience=HASTY)
    assert "Wr0ng" not in str(refused.value)


def test_a_clip_gives_every_frame_and_ends(web, make_clip):
    make_clip("clip.mp4", [counted(k) for k in range(40)], options={"crf": "1"})
    assert not probe(f"{web.url}/clip.mp4").live
    source = open_source(f"{web.url}/clip.mp4")
    frames = list(iter(source.read, None))
    source.close()
    assert [number_in(frame.rgb) for frame in frames] == list(range(40))
    assert [round(frame.stamp.pts_ns / 40_000_000) for frame in frames] == list(range(40)) and source.lost is None


@pytest.mark.parametrize("with_sound", [True, False])
def test_a_clip_says_that_its_sound_is_left_out_and_only_then(web, tmp_path, with_sound):
    with av.open(str(tmp_path / "clip.mp4"), "w") as out:
        video, sound = out.add_stream("libx264", rate=25), out.add_stream("aac", rate=48000) if with_sound else None
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for k in range(10):
            frame = av.VideoFrame.from_ndarray(counted(k)[:48, :64].copy(), format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            out.mux(video.encode(frame))
        if sound is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.rate, silence.pts = 48000, 0
            out.mux(sound.encode(silence))
            out.mux(sound.encode(None))
        out.mux(video.encode(None))
    source = open_source(f"{web.url}/clip.mp4")
    count = len(list(iter(source.read, None)))
    source.close()
    assert count == 10 and ("sound of a clip over HTTP is left out" in (source.warning or "")) == with_sound


def test_hls_is_shown_at_its_own_pace_not_a_segment_at_a_time(web, tmp_path):
    playlist = tmp_path / "live.m3u8"
    sender = servers.Sender("-f", "hls", "-hls_time", "0.8", "-hls_list_size", "6", str(playlist))
    try:
        deadline = time.monotonic() + 30
        while not playlist.exists() or playlist.read_text().count(".ts") < 3:
            assert time.monotonic() < deadline and sender.process.poll() is None, "no playlist appeared"
            time.sleep(0.05)  # another program writes the file: there is no event to wait for
        source = open_source(f"{web.url}/live.m3u8", patience=HASTY)
        frames = [source.read() for _ in range(40)]
        report = source.report()
        source.close()
    finally:
        sender.kill()
    assert source.info.live and report["skipped"] < 10, "of two segments at once nearly all would be skipped"
    fresh = [frame for frame in frames if not frame.stamp.stale]
    assert all(np.abs(f.rgb.reshape(-1, 3).mean(0) - servers.COLOURS["red"]).max() < 12 for f in fresh)


@pytest.mark.parametrize("gap_s", [0, 3600])
def test_a_discontinuity_of_hls_keeps_the_spacing_of_the_pictures(web, tmp_path, make_clip, gap_s):
    make_clip("s0.ts", [counted(k) for k in range(25)])
    make_clip("s1.ts", [counted(25 + k) for k in range(25)], pts=[25 * gap_s + k for k in range(25)])
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n"
    rest = "#EXTINF:1.0,\ns0.ts\n#EXT-X-DISCONTINUITY\n#EXTINF:1.0,\ns1.ts\n#EXT-X-ENDLIST\n"
    (tmp_path / "disc.m3u8").write_text(head + rest)
    source = open_source(f"{web.url}/disc.m3u8")
    frames = list(iter(source.read, None))
    source.close()
    assert [number_in(frame.rgb) for frame in frames] == list(range(50))
    assert [frame.stamp.pts_ns for frame in frames] == [k * 40_000_000 for k in range(50)]
    assert source.warning.count("jumps") == 1 and "\n" not in source.warning


def test_a_camera_that_sends_exif_is_turned_as_it_says(web):
    colour = np.zeros((48, 64, 3), np.uint8)
    colour[:24] = servers.COLOURS["blue"]  # the upper half, which orientation 6 turns to the right
    jpeg = cv2.imencode(".jpg", colour[..., ::-1])[1].tobytes()
    web.pictures = [jpeg[:2] + exif(6) + jpeg[2:]]
    source = open_source(f"{web.url}/video.mjpg")
    frame = source.read()
    source.close()
    assert frame.rgb.shape == (64, 48, 3)
    assert frame.rgb[:, 30:, 2].mean() > 150 and frame.rgb[:, :18, 2].mean() < 30


def test_an_answer_that_is_no_video_is_given_up(web, tmp_path):
    (tmp_path / "notes").write_text("no video here " * 500)
    with pytest.raises(SourceLost, match="cannot be reached: what it sends is no video"):
        open_source(f"{web.url}/notes", patience=HASTY)


def test_a_playlist_cannot_reach_files_of_this_machine(web, tmp_path, make_clip):
    clip = make_clip("secret.ts", [counted(k) for k in range(10)], format="mpegts")
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
    (tmp_path / "own.m3u8").write_text(playlist.format("secret.ts"))
    (tmp_path / "theft.m3u8").write_text(playlist.format(f"file://{clip}"))
    source = open_source(f"{web.url}/own.m3u8", patience=HASTY)  # the control: the clip itself can be played
    assert source.read() is not None
    source.close()
    with pytest.raises(SourceLost):
        open_source(f"{web.url}/theft.m3u8", patience=HASTY)
