"""A session starts, changes, pauses, records and stops a real run."""

import io
import shutil
import socket
import threading

import av
import cv2
import numpy as np
import psutil
import pytest
from PIL import Image
from support.servers import Web
from support.waiting import until
from support.workers import STAGES

from warpfuse.engine.bundle import load_bundle
from warpfuse.engine.errors import BadInput, BundleError
from warpfuse.graph.errors import ConfigError, StageFailed
from warpfuse.graph.plan.live_settings import NeedsRestart
from warpfuse.stages.errors import SinkError, SourceError, Stopped, StyleError
from warpfuse.web.pictures import Look
from warpfuse.web.session import NotRunning, PageSession


def far_apart(session):
    """Mean distance of the styled picture from its source, 0..255."""
    shown = session.pictures.shown
    return float(np.abs(shown.styled.astype(int) - shown.source).mean())


def shown_since(session, number):
    return lambda: session.pictures.shown is not None and session.pictures.shown.number > number + 3


def test_a_change_is_seen_in_the_picture_and_the_source_of_the_same_frame_is_beside_it(session):
    session.start({"fusion": 0})
    until(shown_since(session, 0), "a picture")
    assert session.state == "running"
    early = session.pictures.shown
    until(shown_since(session, early.number), "another picture")
    assert far_apart(session) < 1, "`same` shows the source of this very frame"
    other = np.abs(session.pictures.shown.styled.astype(int) - early.source).mean()
    assert other > 1, "the source of another frame would have been told apart"
    assert session.change({"prompt": "negative"}) == 1
    until(lambda: far_apart(session) > 20, "the negative")
    assert session.settings()["prompt"] == "negative"


def test_fusion_can_be_switched_on_although_it_was_off_at_the_start(session):
    session.start({"fusion": 0})
    session.change({"stages": {"fuse": {"weight": 0.9}}})
    assert session.settings()["stages"]["fuse"]["weight"] == 0.9
    session.change({"fusion": 0.5})
    assert session.settings()["stages"]["fuse"]["weight"] == 0.5


@pytest.mark.parametrize(
    ("wanted", "error", "words"),
    [
        ({"promt": "same"}, ConfigError, "did you mean 'prompt'"),
        ({"strength": 2}, ConfigError, "strength"),
        ({"prompt": "sane"}, StyleError, "did you mean 'same'"),
        ({"seed": 7}, NeedsRestart, "seed cannot change while frames flow"),
        ({"stages": {"fuse": {"reference": "latent"}}}, NeedsRestart, "which stages there are"),
        ({"stages": 3}, ConfigError, "stages"),
        ({"stages": {"fuse": 3}}, ConfigError, "stages.fuse"),
    ],
)
def test_what_cannot_be_used_changes_nothing(session, wanted, error, words):
    session.start()
    before = session.settings()
    with pytest.raises(error, match=words):
        session.change(wanted)
    assert session.settings() == before and session.state == "running"


def test_a_restart_takes_what_a_change_could_not(session):
    session.start()
    session.restart({"seed": 7, "size": "64x48"})
    until(lambda: session.pictures.shown and session.pictures.shown.styled.shape == (48, 64, 3), "the new size")
    assert session.settings()["seed"] == 7 and session.state == "running"
    with pytest.raises(ConfigError):
        session.restart({"seed": -1})
    assert session.state == "running", "what cannot be used leaves the run alone"


def torn(bundle, folder):
    """A copy of a bundle that reads well and cannot be opened."""
    copy = shutil.copytree(bundle, folder / "torn")
    (copy / load_bundle(str(copy)).about.networks["unet"]).write_bytes(b"nothing")
    return str(copy)


def test_a_run_that_had_to_stop_for_one_that_cannot_start_is_started_again(session, keys, exact_bundle, tmp_path):
    session.start()
    until(shown_since(session, 0), "a picture")
    before = session.settings()
    with pytest.raises(BundleError, match="torn or changed"):
        session.restart({"bundle": torn(exact_bundle, tmp_path), "seed": 3})
    assert (session.state, session.settings()) == ("running", before)
    seen = session.pictures.shown.number
    until(shown_since(session, seen), "pictures of the run as it was")
    assert any("starts again as it was" in line for line in session.lines)


def test_settings_stay_free_and_a_stop_is_heard_while_a_new_source_is_connected(session):
    session.start()
    until(shown_since(session, 0), "a picture")
    with socket.create_server(("127.0.0.1", 0)) as server:  # it takes the connection and never answers
        ended = []

        def restart():
            with pytest.raises(Stopped):
                session.restart({"source": f"rtsp://127.0.0.1:{server.getsockname()[1]}/x"})
            ended.append(True)

        starting = threading.Thread(target=restart)
        starting.start()
        server.settimeout(40)
        connection, _ = server.accept()
        with connection:
            assert session.state == "running"
            session.change({"prompt": "negative"})
            until(lambda: far_apart(session) > 20, "the negative")
            session.stop()
            starting.join(40)
    assert ended and session.state == "stopped" and session.settings()["prompt"] == "negative"


def test_a_prompt_that_another_bundle_does_not_know_gives_way_to_its_default(session):
    assert session.change({"bundle": "embedded"}) is None
    assert session.settings()["prompt"] == "" and "'same'" in session.lines[-1]
    with pytest.raises(StyleError):
        session.change({"bundle": "embedded", "prompt": "same"})
    with pytest.raises(BundleError, match="nothing"):
        session.change({"bundle": "nothing"})


def test_a_source_that_can_be_connected_once_is_connected_once(session, tmp_path):
    web = Web(tmp_path)
    web.pictures, web.once = [cv2.imencode(".jpg", np.full((64, 96, 3), 90, np.uint8))[1].tobytes()], True
    try:
        session.start({"source": f"{web.url}/video.mjpg"})
        until(shown_since(session, 0), "a picture")
        assert (web.asked, session.state) == (1, "running")
        session.stop()
    finally:
        web.close()


def test_a_stop_is_heard_while_a_source_is_being_connected(session):
    with socket.create_server(("127.0.0.1", 0)) as server:  # it takes the connection and never answers
        ended = []

        def start():
            with pytest.raises(Stopped):
                session.start({"source": f"rtsp://127.0.0.1:{server.getsockname()[1]}/x"})
            ended.append(session.state)

        starting = threading.Thread(target=start)
        starting.start()
        server.settimeout(40)
        connection, _ = server.accept()
        with connection:
            assert session.state == "starting"
            session.stop()
            starting.join(40)
    assert ended == ["stopped"] and session.stats()["error"] is None
    session.start({"source": "pattern:96x64@25,live=1,frames=100000"})
    assert session.state == "running", "the stop was for that start"


def test_the_cue_that_is_shown_is_told_and_what_is_set_by_hand_over_it(session):
    assert "cue" not in session.stats()
    looks = {"dark": {"prompt": "negative"}, "plain": {"prompt": "same"}}
    session.start(
        {
            "fusion": 0,
            "looks": looks,
            "schedule": {"every": "1000 s", "cues": ["dark", {"look": "plain", "strength": 0.5}]},
        }
    )
    until(lambda: session.stats()["cue"], "a cue")
    assert session.stats()["cue"] == {"number": 1, "of": 2, "name": "dark", "by_hand": []}
    assert (session.settings()["prompt"], session.shown()["prompt"]) == ("same", "negative"), "beneath it, and seen"
    assert session.shown()["schedule"] == session.settings()["schedule"], "which is played on"
    until(lambda: far_apart(session) > 20, "the negative, which only the cue names")
    session.change({"prompt": "same"})
    until(lambda: session.stats()["cue"]["by_hand"] == ["prompt"], "the hand")
    assert session.shown()["prompt"] == "same"
    until(lambda: far_apart(session) < 1, "what was set by hand")
    session.change({"schedule": {"cues": [{"look": "plain", "strength": 0.5}]}})
    until(lambda: session.stats()["cue"]["name"] == "plain, strength", "another schedule")
    session.change({"schedule": {"on": False}})
    until(lambda: session.stats()["cue"] is None, "no cue")
    assert session.shown() == session.settings()


def test_a_pause_holds_the_picture(session):
    session.start()
    until(shown_since(session, 0), "a picture")
    session.pause()
    assert session.state == "paused"
    until(lambda: session.stats()["dropped"].get("paused", 0) > 3, "frames that were dropped in the pause")
    held = session.pictures.shown.number
    until(lambda: session.stats()["dropped"]["paused"] > 8, "more of them")
    assert session.pictures.shown.number <= held + 8, "what was on its way has arrived, and no more"
    session.resume()
    until(shown_since(session, held + 8), "new pictures")


def test_what_is_on_its_way_does_not_count_as_dropped(session):
    session.start()
    told = []
    until(lambda: told.append(session.stats()) or (len(told) > 20 and told[-1]["frames"]["out"] > 20), "figures")
    assert all("restart" not in now.get("dropped", {}) for now in told)
    assert any(now.get("frames", {"in": 0, "out": 0})["in"] > now["frames"]["out"] for now in told if "frames" in now)


def test_a_recording_can_be_begun_and_ended_while_the_run_goes_on(session):
    session.start()
    until(shown_since(session, 0), "a picture")
    file = session.record(True)
    until(lambda: session.stats()["recording"]["frames"] >= 5, "recorded frames")
    session.record(False)
    assert session.state == "running" and session.stats()["recording"] is None
    with av.open(file) as container:
        frames = list(container.decode(video=0))
    assert len(frames) >= 5 and frames[0].pts == 0 and (frames[0].width, frames[0].height) == (96, 64)


def test_a_recording_is_whole_when_the_run_ends(session):
    session.start({"source": "pattern:96x64@25,frames=30"})
    file = session.record(True)
    until(lambda: session.over, "the end")
    with av.open(file) as container:
        assert sum(1 for _ in container.decode(video=0)) > 0
    assert session.state == "ended"


def test_what_keeps_a_run_from_starting_is_told_and_can_be_mended(session, tmp_path):
    before = session.settings()
    with pytest.raises(SourceError, match=r"none\.mp4"):
        session.start({"source": str(tmp_path / "none.mp4")})
    assert session.settings() == before
    with pytest.raises(SinkError):
        session.start({"source": "pattern:", "sinks": [str(tmp_path / "no" / "folder.mp4")]})
    with pytest.raises(ConfigError, match="no source"):
        session.start({"source": "", "sinks": []})
    session.start({"source": "pattern:96x64@25,live=1"})
    assert session.state == "running" and session.stats()["error"] is None
    with pytest.raises(ConfigError, match="runs already"):
        session.start()


def test_a_stage_that_fails_ends_the_run_and_is_told(session, monkeypatch):
    def broken(self, frame):
        raise ValueError("no memory for pictures")

    monkeypatch.setattr("warpfuse.web.pictures.Pictures.show", broken)
    session.start()
    with pytest.raises(StageFailed, match="no memory for pictures"):
        session.wait()
    assert session.state == "failed" and "no memory" in session.stats()["error"]
    monkeypatch.undo()
    session.start()
    until(shown_since(session, 0), "a picture of the next run")


def test_without_a_run_there_is_nothing_to_pause(keys, tmp_path):
    session = PageSession(keys, record_to=tmp_path)
    for action in (session.pause, session.resume, lambda: session.record(True)):
        with pytest.raises(NotRunning):
            action()
    session.stop()
    assert (session.state, session.change({"seed": 5}), session.settings()["seed"]) == ("stopped", None, 5)


def test_a_page_that_others_reach_names_no_files(keys, tmp_path):
    session = PageSession(keys, record_to=tmp_path, fixed_files=True)
    named = [{"mask": "file:/tmp/x.png"}, {"mask": "/tmp"}, {"controls": {"image": {"picture": "/tmp/x.png"}}}]
    named += [{"controls": {"network": {"of": "/tmp"}}}, {"images": {"look": "/tmp/x.png"}}]
    for refused in ({"source": "/etc/passwd"}, {"sinks": ["/tmp/x.mp4"]}, {"bundle": "/tmp"}, {"flow": "/tmp"}, *named):
        with pytest.raises(ConfigError, match="on the command line only"):
            session.change(refused)
    session.change({"source": "pattern:64x48", "bundle": "embedded", "prompt": ""})
    session.change({"strength": 0.5})
    assert session.settings()["source"] == "pattern:64x48"


def size_of(data):
    """(width, height) of a picture in a file."""
    with Image.open(io.BytesIO(data)) as picture:
        return picture.size


def test_a_picture_that_is_given_is_kept_small_and_may_be_named(image_bundles, keys, tmp_path):
    session = PageSession(
        {**keys, "bundle": image_bundles["shown"]},
        record_to=tmp_path,
        fixed_files=True,
        style_pictures=tmp_path / "kept",
    )
    turned = Image.new("RGB", (900, 600), (250, 40, 10))
    turned.getexif()[0x0112] = 6  # a camera held upright
    turned.save(tmp_path / "photo.jpg", exif=turned.getexif())
    session.show_style("look", (tmp_path / "photo.jpg").read_bytes())
    (kept,) = (tmp_path / "kept").iterdir()
    assert session.settings()["images"]["look"]["picture"] == str(kept)
    assert size_of(kept.read_bytes()) == (427, 640) and size_of(session.style_thumb("look")) == (192, 192)
    assert session.style_thumb("mood") is None
    session.change({"images": {"mood": str(kept)}})  # as a preset names it
    large = io.BytesIO()
    Image.new("L", (9000, 2)).save(large, "PNG")
    for name, data, says in (
        ("look", b"no picture", "this is no picture that can be read"),
        ("look", large.getvalue(), "at most 8192 pixels a side, got 9000"),
        ("lok", kept.read_bytes(), "did you mean 'look'"),
    ):
        with pytest.raises(BadInput, match=says):
            session.show_style(name, data)
    assert [*(tmp_path / "kept").iterdir()] == [kept]
    with pytest.raises(ConfigError, match="give the page the picture itself"):
        session.change({"images": {"mood": str(tmp_path / "kept" / ".." / "photo.jpg")}})


def test_the_last_picture_stays_when_the_run_is_over(session):
    session.start({"source": "pattern:96x64@25,frames=3"})
    assert session.wait().frames.out == 3
    assert session.pictures.shown.number == 3 and session.pictures.png(Look()) is not None


def test_secrets_of_an_address_are_not_shown_but_kept(keys, tmp_path):
    session = PageSession({**keys, "source": "rtsp://ann:swordfish@camera.local/live"}, record_to=tmp_path)
    assert "swordfish" not in str(session.settings()) and "camera.local" in session.settings()["source"]
    session.change({"strength": 0.5})
    assert "swordfish" in session.held.given()["source"], "the run and its presets need it"
    with pytest.raises(ConfigError, match="give the whole address"):
        session.change({"source": session.settings()["source"] + "/other"})


def seen_apart(session):
    """As `far_apart`; -1 before a picture and its source are there: the first of another stream have none."""
    shown = session.pictures.shown
    return -1 if shown is None or shown.source is None else far_apart(session)


@pytest.fixture
def several(keys, tmp_path):
    """A session over two streams: `a` shows its source, `b` the negative of it."""
    common = {key: keys[key] for key in ("bundle", "size")}
    streams = {"a": {"prompt": "same"}, "b": {"prompt": "negative"}}
    streams = {
        name: {**own, "source": keys["source"], "sinks": ["null:"], "fusion": 0} for name, own in streams.items()
    }
    session = PageSession({**common, "streams": streams}, record_to=tmp_path / "recordings")
    yield session
    session.close()


def test_one_of_several_streams_is_looked_at_and_controlled(several):
    several.start()
    assert (several.state, several.stats()["streams"], several.selected) == ("running", ["a", "b"], "a")
    until(lambda: 0 <= seen_apart(several) < 1, "the picture of a")
    several.select("b")
    until(lambda: seen_apart(several) > 20, "the picture of b")
    assert several.settings()["prompt"] == "negative"
    several.change({"prompt": "same"})
    until(lambda: 0 <= seen_apart(several) < 1, "the change of b")
    several.select("a")
    assert several.settings()["prompt"] == "same" and several.state == "running"
    several.pause()
    assert several.state == "paused"
    several.select("b")
    assert several.state == "running", "a alone is held"
    with pytest.raises(ConfigError, match="no stream 'c'; known: a, b"):
        several.select("c")


def test_streams_join_and_leave_from_the_page(several, keys):
    several.start()
    assert several.add({"source": keys["source"], "sinks": ["null:"], "prompt": "negative"}, "c") == "c"
    several.select("c")
    until(lambda: seen_apart(several) > 20, "the picture of c")
    for name in ("c", "a"):
        several.remove(name)
    assert several.stats()["streams"] == ["b"] == [several.selected]
    with pytest.raises(ConfigError, match="sinks"):
        several.add({"source": keys["source"]})
    with pytest.raises(ConfigError, match="hooks: a file of Python is code"):
        several.add({"source": keys["source"], "sinks": ["null:"], "hooks": "mine.py"})
    several.remove("b")
    assert several.state == "running" and several.stats()["streams"] == [], "it waits for the next"
    several.add({"source": keys["source"], "sinks": ["null:"]}, "d")
    until(lambda: several.stats().get("frames", {"out": 0})["out"] > 3, "frames of d")
    several.stop()
    assert several.over


def test_a_run_of_one_stream_takes_no_others(session, keys):
    session.start()
    with pytest.raises(ConfigError, match="has one stream"):
        session.add({"source": keys["source"], "sinks": ["null:"]})


@pytest.fixture(params=["stages", "names"])
def apart(request, keys, tmp_path, short_folder, monkeypatch):
    """A session over a run of several processes."""
    monkeypatch.setenv("WARPFUSE_RUN", str(short_folder))
    monkeypatch.setenv("WARPFUSE_SHM", str(tmp_path))
    names = {"near": ["source", "upload", "encode"], "far": [*STAGES[2:], "sink_1"]}
    workers = "stages" if request.param == "stages" else names
    session = PageSession(
        {**keys, "sinks": ["null:"], "fusion": 0, "workers": workers}, record_to=tmp_path / "recordings"
    )
    before = set(psutil.Process().children())
    yield session
    session.close()
    assert set(psutil.Process().children()) <= before, "a process was left"
    assert not list(short_folder.glob("warpfuse/*")), "a socket was left"


def test_the_page_looks_at_a_run_of_several_processes_and_changes_it(apart):
    apart.start()
    until(lambda: apart.pictures.shown is not None, "a picture")
    plain = apart.pictures.shown.styled.astype(int)
    assert apart.change({"prompt": "negative", "fusion": 0.3}) == 1, "fusion can be switched on"
    until(lambda: np.abs(apart.pictures.shown.styled.astype(int) - plain).mean() > 20, "the negative")
    assert apart.settings()["prompt"] == "negative" and apart.settings()["sinks"] == ["null:"]
    with pytest.raises(NeedsRestart, match="seed"):
        apart.change({"seed": 5})
    file = apart.record(True)
    until(lambda: apart.stats()["recording"]["frames"] >= 3, "recorded frames")
    apart.record(False)
    with av.open(file) as container:
        assert sum(1 for _ in container.decode(video=0)) >= 3
    apart.pause()
    assert apart.state == "paused" and apart.stats()["views"] == ["styled"]
    apart.resume()
    seen = apart.pictures.shown.number
    until(lambda: apart.pictures.shown.number > seen + 3, "new pictures")
    apart.stop()
    assert apart.over and apart.wait().interrupted


def shows(session, size):
    return lambda: session.pictures.shown is not None and session.pictures.shown.styled.shape[1::-1] == size


def test_a_stream_host_shows_what_joins_and_waits_when_it_has_left(exact_bundle, tmp_path):
    session = PageSession({"bundle": str(exact_bundle), "host": True}, record_to=tmp_path)
    camera = {"source": "pattern:96x64@25,live=1,frames=1000000", "sinks": ["null:"], "prompt": "same"}
    try:
        session.start()
        assert (session.state, session.streams, session.selected) == ("running", [], "")
        for name, size in (("gate", (96, 64)), ("door", (64, 48))):
            session.add({**camera, "size": size}, name)
            assert session.selected == name
            until(shows(session, size), "a picture of the stream that joined")
            session.remove(name)
            assert (session.state, session.streams, session.selected) == ("running", [], "")
        assert session.settings()["prompt"] == ""
    finally:
        session.close()
