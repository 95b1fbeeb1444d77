"""What a camera's address means, which mode is taken, and where a camera is found again. Devices: tests/vm."""

from fractions import Fraction
from pathlib import Path

import pytest

from warpfuse.stages.errors import SourceError
from warpfuse.stages.sources import open_source, v4l2
from warpfuse.stages.sources.camera import Wish, choose, find
from warpfuse.stages.sources.v4l2 import Device, Mode, ioctl_number


def modes(*texts):
    out = []
    for text in texts:
        size, _, rest = text.partition("@")
        fps, _, form = rest.partition(",")
        out.append(Mode(form, *map(int, size.split("x")), Fraction(fps)))
    return out


# What a usual USB 2 webcam gives: raw pictures only as small or as slow as the bus allows.
WEBCAM = modes(
    "640x480@30,YUYV", "1280x720@10,YUYV", "1920x1080@5,YUYV",
    "640x480@30,MJPG", "1280x720@30,MJPG", "1920x1080@30,MJPG", "640x480@15,MJPG", "800x600@30,H264",
)  # fmt: skip


@pytest.mark.parametrize(
    ("url", "wish"),
    [
        ("camera:0", Wish(Path("/dev/video0"))),
        ("camera:2,640x480", Wish(Path("/dev/video2"), (640, 480))),
        ("camera:0,1280x720@30,mjpeg", Wish(Path("/dev/video0"), (1280, 720), Fraction(30), "MJPG")),
        ("/dev/video3,@29.97,yuyv", Wish(Path("/dev/video3"), None, Fraction("29.97"), "YUYV")),
        ("camera:0,nv12,@30000/1001", Wish(Path("/dev/video0"), None, Fraction(30000, 1001), "NV12")),
    ],
)
def test_an_address_says_what_is_asked_for(url, wish):
    assert Wish.parse(url) == wish


@pytest.mark.parametrize(
    ("url", "words"),
    [("camera:", "has a number"), ("camera:front", "doctor --cameras"), ("camera:0,mjpgg", "Did you mean 'mjpg'"),
     ("camera:0,1280", "neither a size"), ("camera:0,@0", "must be above 0"),
     ("camera:0,@30/0", "must be above 0"), ("camera:0,@1.2.3", "must be above 0")],
)  # fmt: skip
def test_an_address_that_is_not_understood_is_bad_input(url, words):
    with pytest.raises(SourceError, match=words):
        Wish.parse(url)


@pytest.mark.parametrize(
    ("asked", "taken"),
    [
        ("camera:0", "1280x720@30,mjpg"),  # smooth and moderate before uncompressed
        ("camera:0,640x480", "640x480@30,yuyv"),  # uncompressed where it costs nothing
        ("camera:0,1920x1080", "1920x1080@30,mjpg"),
        ("camera:0,yuyv", "640x480@30,yuyv"),
        ("camera:0,1280x720,yuyv", "1280x720@10,yuyv"),
        ("camera:0,@15", "640x480@15,mjpg"),
    ],
)
def test_the_best_mode_that_fits_is_taken(asked, taken):
    assert str(choose(Wish.parse(asked), WEBCAM)) == taken


def test_a_camera_with_nothing_but_large_or_slow_modes_gives_the_least_bad():
    assert str(choose(Wish(Path("x")), modes("3840x2160@30,MJPG", "2560x1440@30,MJPG"))) == "2560x1440@30,mjpg"
    assert str(choose(Wish(Path("x")), modes("640x480@5,YUYV", "1280x720@5,YUYV"))) == "1280x720@5,yuyv"


def test_what_a_camera_does_not_give_is_said_with_what_it_does():
    with pytest.raises(SourceError, match=r"does not give what was asked for. Nearest are: 640x480@30"):
        choose(Wish.parse("camera:0,123x45"), WEBCAM)


def test_a_camera_is_found_where_it_was_then_by_its_plug_then_by_its_name():
    def device(number, bus, card="C920", captures=True):
        return Device(Path(f"/dev/video{number}"), "uvcvideo", card, bus, captures)

    lost = device(0, "usb-1")
    others = [device(1, "usb-1", captures=False), device(7, "usb-1", card="Other")]
    assert find(lost, [*others, device(5, "usb-2"), device(4, "usb-1"), device(0, "usb-1")]) == Path("/dev/video0")
    assert find(lost, [*others, device(0, "usb-2"), device(4, "usb-1")]) == Path("/dev/video4")
    assert find(lost, [*others, device(5, "usb-2")]) == Path("/dev/video5")
    assert find(lost, others) is None


def test_requests_are_those_of_the_kernels_header():
    # From `linux/videodev2.h` on a 64-bit machine: VIDIOC_QUERYCAP, _S_FMT, _DQBUF, _STREAMON.
    assert ioctl_number(0, 104, reads=True, writes=False) == 0x80685600
    assert ioctl_number(5, 208, reads=True, writes=True) == 0xC0D05605
    assert ioctl_number(17, 88, reads=True, writes=True) == 0xC0585611
    assert ioctl_number(18, 4, reads=False, writes=True) == 0x40045612


def test_a_camera_that_is_not_there_is_bad_input_and_says_which_are():
    with pytest.raises(SourceError, match=r"there is no /dev/video987. Cameras: "):
        open_source("camera:987")


def test_a_machine_without_cameras_lists_none(tmp_path):
    assert v4l2.devices(tmp_path / "class", tmp_path / "dev") == []
    (tmp_path / "class/video0").mkdir(parents=True)  # a device that went away while it was listed
    assert v4l2.devices(tmp_path / "class", tmp_path) == []
