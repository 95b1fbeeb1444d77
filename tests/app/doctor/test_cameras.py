"""`warpfuse doctor --cameras`: with cameras of paper here, with real devices in tests/vm."""

import json
from fractions import Fraction
from pathlib import Path

import pytest

from warpfuse.doctor import cameras
from warpfuse.stages.sources.v4l2 import Device, Mode


@pytest.fixture
def plugged(monkeypatch):
    """Two cameras, the second of which fails, and a device that only writes."""
    good = Device(Path("/dev/video0"), "uvcvideo", "C920", "usb-1", True)
    bad, output = (Device(Path(f"/dev/video{n}"), "uvcvideo", "Broken", "usb-2", n == 1) for n in (1, 2))

    def modes(path):
        if path == bad.path:
            raise OSError(5, "Input/output error")
        return [
            Mode("YUYV", 640, 480, Fraction(30)),
            Mode("MJPG", 1280, 720, Fraction(30)),
            Mode("H264", 99, 99, Fraction(1)),
        ]

    monkeypatch.setattr(cameras.v4l2, "devices", lambda: [good, bad, output])
    monkeypatch.setattr(cameras.v4l2, "modes", modes)
    links = {good.path: [Path("/dev/v4l/by-id/usb-C920-video-index0")]}
    monkeypatch.setattr(cameras.v4l2, "links", lambda path: links.get(path, []))


def test_each_camera_is_listed_with_what_source_takes(command, plugged):
    code, out, _ = command("doctor", "--cameras", "--json")
    first, second = json.loads(out)["cameras"]
    assert code == 0 and first["usual"] == "/dev/video0,1280x720@30,mjpg" in first["modes"]
    assert first["links"] == ["/dev/v4l/by-id/usb-C920-video-index0"] and second["links"] == []
    assert second["usual"] is None and "Input/output error" in second["problem"]


def test_the_table_shows_modes_and_the_command(command, plugged):
    code, out, _ = command("doctor", "--cameras")
    text = " ".join(out.split())
    assert code == 0 and "warpfuse run --source /dev/video0,1280x720@30,mjpg" in text
    assert "/dev/v4l/by-id/usb-C920-video-index0" in text
    assert "640x480" in text and "cannot be decoded here" in text and "Input/output error" in text


def test_without_a_camera_the_list_says_what_to_do(command, monkeypatch):
    monkeypatch.setattr(cameras.v4l2, "devices", list)
    code, out, _ = command("doctor", "--cameras")
    assert code == 0 and "plug one in" in out
