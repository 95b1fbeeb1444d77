"""Cameras of Windows and macOS: what FFmpeg's input devices are asked, and a stand-in for them: its `lavfi`, with which
the same code runs. The devices themselves are not here."""

import sys
import threading
from fractions import Fraction

import av
import numpy as np
import pytest

from warpfuse.doctor import cameras
from warpfuse.stages.errors import SourceError, SourceLost
from warpfuse.stages.sources import open_source
from warpfuse.stages.sources.faults import Broken, Fault
from warpfuse.stages.sources.input_devices import (
    DEVICE_KINDS,
    DeviceKind,
    DeviceSession,
    InputDevice,
    device_options,
    find_camera,
)

RED = InputDevice("color=c=red:size=160x120:rate=25,realtime", "Red Camera")
BLUE = InputDevice("color=c=blue:size=320x240:rate=10,realtime", "Blue Camera")
SHORT = InputDevice("color=c=blue:size=64x48:rate=25:duration=0.2", "Short")
STAND_IN = DeviceKind("lavfi", str, lambda: [RED, BLUE])


@pytest.fixture
def elsewhere(monkeypatch):
    monkeypatch.setitem(DEVICE_KINDS, sys.platform, STAND_IN)


# ffmpeg -f dshow -video_size 640x480 -framerate 30 -i video="Integrated Camera"      (ffmpeg-devices, dshow)
# ffmpeg -f avfoundation -framerate 30 -i "0:none"                                    (ffmpeg-devices, avfoundation)
@pytest.mark.parametrize(
    ("system", "id", "address", "plain", "wished"),
    [
        ("win32", "Integrated Camera", "video=Integrated Camera", {}, {"video_size": "640x480", "framerate": "25"}),
        ("darwin", "0", "0:none", {"framerate": "30"}, {"video_size": "640x480", "framerate": "25"}),
    ],
)
def test_ffmpeg_is_asked_as_its_documentation_says(system, id, address, plain, wished):
    kind = DEVICE_KINDS[system]
    assert kind.format == {"win32": "dshow", "darwin": "avfoundation"}[system]
    assert kind.address(id) == address
    assert device_options(kind, None, None) == plain
    assert device_options(kind, (640, 480), Fraction(25)) == wished


@pytest.mark.parametrize(("wished", "found"), [("0", RED), ("1", BLUE), ("blue", BLUE), ("Red Camera", RED)])
def test_a_camera_is_found_by_number_and_by_a_part_of_its_name(wished, found):
    assert find_camera("camera:x", wished, STAND_IN) == found


@pytest.mark.parametrize(
    ("wished", "told"), [("2", "no camera 2"), ("Camera", "2 cameras have"), ("green", "no camera has a name")]
)
def test_a_camera_that_is_not_told_apart_is_an_error_with_the_list(wished, told):
    with pytest.raises(SourceError, match=told) as caught:
        find_camera("camera:x", wished, STAND_IN)
    assert "1 'Blue Camera'" in str(caught.value)


@pytest.mark.parametrize(("url", "size", "rgb"), [("camera:0", (160, 120), 0), ("camera:Blue", (320, 240), 2)])
def test_a_camera_is_a_live_source_in_its_own_colours(elsewhere, url, size, rgb):
    source = open_source(url, None, 5)
    try:
        frames = [source.read() for _ in range(5)]
    finally:
        source.close()
    assert source.info.live and (source.info.width, source.info.height) == size
    mean = frames[-1].rgb.reshape(-1, 3).mean(0)
    assert mean.argmax() == rgb and mean[rgb] > 240 and np.delete(mean, rgb).max() < 15


def test_a_camera_that_gives_another_size_is_not_taken(elsewhere):
    with pytest.raises(SourceLost, match="asked for 320x240 and gives 160x120"):
        open_source("camera:0,320x240")


def test_the_format_is_refused_where_it_cannot_be_chosen(elsewhere):
    with pytest.raises(SourceError, match="no format"):
        open_source("camera:0,mjpeg")


def test_a_camera_that_cannot_be_opened_is_told_with_what_helps():
    with pytest.raises(Broken, match="'Broken' cannot be opened") as caught:
        DeviceSession(STAND_IN, InputDevice("no_such_filter", "Broken"), None, None, 1.0)
    assert "privacy settings" in caught.value.remedy


def test_a_camera_that_ends_is_a_connection_to_make_anew():
    session = DeviceSession(STAND_IN, SHORT, None, None, 1.0)
    with pytest.raises(Broken) as caught:
        for _ in session.pictures():
            pass
    session.close()
    assert caught.value.fault is Fault.ENDED


class Waiting:
    """A device that never has a picture: to one that does not wait, FFmpeg says EAGAIN."""

    def __init__(self, container):
        self.streams, self.close, self.flags = container.streams, container.close, 0

    def demux(self, _):
        assert self.flags == 4  # AVFMT_FLAG_NONBLOCK
        raise BlockingIOError(11, "Resource temporarily unavailable")
        yield


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_camera_without_pictures_is_waited_for_only_so_long(monkeypatch, interrupted):
    really = av.open
    monkeypatch.setattr(av, "open", lambda *args, **options: Waiting(really(*args, **options)))
    session = DeviceSession(STAND_IN, RED, None, None, 1e9 if interrupted else 0.05)
    if interrupted:
        threading.Timer(0.05, session.interrupt).start()
    with pytest.raises(Broken) as caught:
        next(session.pictures())
    session.close()
    assert caught.value.fault is (Fault.ENDED if interrupted else Fault.SILENT)


def test_the_list_of_cameras_says_what_source_takes(elsewhere):
    first, second = cameras.to_dict(cameras.cameras())
    assert (first["card"], first["usual"], first["driver"]) == ("Red Camera", "camera:0", "lavfi")
    assert (second["card"], second["usual"], second["problem"]) == ("Blue Camera", "camera:1", None)


def test_a_system_that_cannot_list_cameras_says_why(monkeypatch):
    monkeypatch.setitem(DEVICE_KINDS, sys.platform, DEVICE_KINDS["win32"])
    (camera,) = cameras.to_dict(cameras.cameras())
    assert "dshow" in camera["problem"] and camera["usual"] is None
