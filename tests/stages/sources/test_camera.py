"""What a camera's address means, which mode is taken, and where a camera is found again. Devices: tests/vm."""

from fractions import Fraction
from pathlib import Path

import pytest

from warpfuse.stages.errors import SourceError
from warpfuse.stages.sources import open_source, v4l2
from warpfuse.stages.sources.camera import Wish, choose, find, locate
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


PLUGGED = [
    Device(Path(f"/dev/video{number}"), "uvcvideo", card, bus, card != "Printer")
    for number, card, bus in (
        (0, "Integrated Camera", "usb-1"),
        (1, "Integrated IR Camera", "usb-1"),
        (2, "HD Pro Webcam C920", "usb-2"),
        (3, "HD Pro Webcam C920", "usb-2"),  # the same one: a second device of it
        (5, "Printer", "usb-6"),
        (6, "Logitech Webcam C930e", "usb-5"),
        (7, "Logitech BRIO", "usb-3"),
        (8, "Logitech BRIO", "usb-4"),
    )
]


@pytest.mark.parametrize(
    ("url", "wish"),
    [
        ("camera:0", Wish(Path("/dev/video0"))),
        ("camera:2,640x480", Wish(Path("/dev/video2"), (640, 480))),
        ("camera:0,1280x720@30,mjpeg", Wish(Path("/dev/video0"), (1280, 720), Fraction(30), "MJPG")),
        ("/dev/video3,@29.97,yuyv", Wish(Path("/dev/video3"), None, Fraction("29.97"), "YUYV")),
        (
            "/dev/v4l/by-id/usb-046d_C920-video-index0,1280x720",
            Wish(Path("/dev/v4l/by-id/usb-046d_C920-video-index0"), (1280, 720)),
        ),
        (
            "/dev/v4l/by-path/pci-0000:00:14.0-usb-0:1:1.0-video-index0",
            Wish(Path("/dev/v4l/by-path/pci-0000:00:14.0-usb-0:1:1.0-video-index0")),
        ),
        ("CAMERA:/dev/v4l/by-id/x, mjpeg", Wish(Path("/dev/v4l/by-id/x"), format="MJPG")),
        ("camera:HD Pro Webcam C920,640x480", Wish("HD Pro Webcam C920", (640, 480))),
        ("camera:Integrated Camera: Integrated C", Wish("Integrated Camera: Integrated C")),
        ("camera:0,nv12,@30000/1001", Wish(Path("/dev/video0"), None, Fraction(30000, 1001), "NV12")),
    ],
)
def test_an_address_says_what_is_asked_for(url, wish):
    assert Wish.parse(url) == wish


@pytest.mark.parametrize(
    ("url", "words"),
    [("camera:", "has a number or a name"), ("camera:0,mjpgg", "Did you mean 'mjpg'"),
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


@pytest.mark.parametrize(
    ("name", "number"),
    [("C920", 2), ("hd pro", 2), ("integrated camera", 0), ("Integrated IR", 1), ("c930", 6), ("integrated c", 0)],
)
def test_a_camera_goes_by_a_part_of_its_name(name, number):
    assert locate(f"camera:{name}", name, PLUGGED) == Path(f"/dev/video{number}")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Integrated", ["2 cameras", "/dev/video0 'Integrated Camera'", "/dev/video1 'Integrated IR Camera'", "by-id"]),
        ("BRIO", ["2 cameras", "/dev/video7", "usb-3", "/dev/video8", "usb-4", "by-path"]),
        ("Kiyo", ["no camera has a name with 'Kiyo'", "/dev/video2 'HD Pro Webcam C920'", "doctor --cameras"]),
        ("Printer", ["no camera has a name"]),  # it only writes
    ],
)
def test_a_name_that_is_nobodys_or_several_ones_is_bad_input_that_lists_them(name, words):
    with pytest.raises(SourceError) as refused:
        locate(f"camera:{name}", name, PLUGGED)
    assert all(word in str(refused.value) for word in words)


def test_a_machine_without_cameras_says_so_whatever_the_name():
    with pytest.raises(SourceError, match=r"'front' in it. Cameras: none"):
        locate("camera:front", "front", [])


def test_the_names_that_udev_gives_a_device_are_found(tmp_path):
    device = tmp_path / "video0"
    device.touch()
    for folder, name, target in (
        ("by-id", "b-index0", "video0"),
        ("by-id", "b-index1", "video1"),
        ("by-path", "a", "video0"),
    ):
        (tmp_path / "v4l" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "v4l" / folder / name).symlink_to(tmp_path / target)
    found = [str(link.relative_to(tmp_path)) for link in v4l2.links(device, tmp_path / "v4l")]
    assert found == ["v4l/by-id/b-index0", "v4l/by-path/a"]


def test_a_link_to_nothing_is_bad_input():
    with pytest.raises(SourceError, match=r"there is no /dev/v4l/by-id/usb-gone. Cameras: "):
        open_source("/dev/v4l/by-id/usb-gone,640x480")


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
