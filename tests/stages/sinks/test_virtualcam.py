"""The virtual camera without a device; the real v4l2loopback is in tests/vm."""

import sys
import threading
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from warpfuse.stages.errors import SinkError, SinkLost
from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.sinks import camera_thread, check, open_sink, virtualcam
from warpfuse.stages.sinks.bt709 import ToBt709
from warpfuse.stages.sinks.camera_thread import CameraThread
from warpfuse.stages.sinks.v4l2_output import packed
from warpfuse.stages.stage import VideoInfo

SIZE = (64, 48)
INFO = VideoInfo(*SIZE, Fraction(200), Fraction(1, 200), live=True)


class Screen:
    """An output that keeps what it shows, and can be told to fail."""

    def __init__(self) -> None:
        self.levels: list[int] = []
        self.fail = self.closed = False
        self._shown = threading.Condition()

    def send(self, rgb: Any) -> None:
        if self.fail:
            raise OSError(19, "No such device")
        with self._shown:
            self.levels.append(int(rgb[0, 0, 0]))
            self._shown.notify_all()

    def wait_for(self, level: int) -> None:
        """Until `level` is shown."""
        with self._shown:
            assert self._shown.wait_for(lambda: self.levels[-1:] == [level], 30)

    def wait_more(self, count: int) -> None:
        """Until `count` pictures have been shown after now."""
        with self._shown:
            wanted = len(self.levels) + count
            assert self._shown.wait_for(lambda: len(self.levels) >= wanted, 30)

    def close(self) -> None:
        self.closed = True


def frame(level: int) -> RawFrame:
    return RawFrame(Stamp(level, level * 5_000_000), np.full((SIZE[1], SIZE[0], 3), level, np.uint8))


def camera(screen: Screen, on_fault: Any = "hold") -> CameraThread:
    return CameraThread("camera", screen, INFO, SIZE, INFO.fps, on_fault)


def test_a_camera_is_dark_first_and_then_shows_the_last_picture_for_ever() -> None:
    screen = Screen()
    sink = camera(screen)
    screen.wait_for(16)
    sink.write(frame(90))
    screen.wait_for(90)
    screen.wait_more(20)
    assert set(screen.levels[-20:]) == {90}
    sink.close(True)
    sink.close(True)
    assert screen.closed
    assert sink.repeated >= 20
    assert sink.sent == len(screen.levels)


@pytest.mark.parametrize(("on_fault", "level"), [("hold", 90), ("passthrough", 30)])
def test_a_fault_is_bridged_as_asked(on_fault: str, level: int) -> None:
    screen = Screen()
    sink = camera(screen, on_fault)
    assert sink.raw_wanted == (on_fault == "passthrough")
    sink.write(frame(90))
    screen.wait_for(90)
    for _ in range(400):  # the source goes on, styled pictures do not come: two seconds at this rate
        sink.write_raw(frame(30))
        screen.wait_more(1)
    assert screen.levels[-1] == level
    sink.write(frame(120))
    screen.wait_for(120)
    sink.close(True)
    assert (sink.bridged > 0) == (on_fault == "passthrough")


def test_a_picture_of_the_source_is_fitted_only_when_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[int] = []
    resize = camera_thread.cv2.resize
    monkeypatch.setattr(
        camera_thread.cv2, "resize", lambda rgb, *args, **kw: (fitted.append(1), resize(rgb, *args, **kw))[1]
    )
    screen = Screen()
    sink = camera(screen, "passthrough")
    sink.write(frame(90))
    screen.wait_for(90)
    sizes = [(2 * SIZE[1], 2 * SIZE[0], 3), (SIZE[1], 3 * SIZE[0], 3)]  # it changes in mid stream
    pictures = [RawFrame(Stamp(n, 0), np.full(shape, 30 + n, np.uint8)) for n, shape in enumerate(sizes)]
    for n in range(100):
        sink.write_raw(pictures[n % 2])
        sink.write(frame(90))
        screen.wait_more(1)
    assert set(screen.levels[-50:]) == {90} and sink.bridged == len(fitted) == 0, "a resize for a picture nobody saw"
    for n in range(400):  # control: without styled pictures it is shown, and fitted once for each that is
        sink.write_raw(pictures[n // 300])
        screen.wait_more(1)
    sink.close(True)
    assert screen.levels[-1] == 31 and 0 < len(fitted) <= sink.bridged


def test_a_camera_that_is_gone_ends_the_run() -> None:
    screen = Screen()
    sink = camera(screen)
    screen.wait_for(16)
    screen.fail = True
    with pytest.raises(SinkLost, match="camera: the camera is gone"):
        for _ in range(100_000):
            sink.write(frame(1))
    sink.close(False)
    assert screen.closed


def test_conversion_is_bt709_limited_within_a_level() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (200, 3))
    for name in ("nv12", "yuyv422"):
        convert = ToBt709(name)
        for rgb in colours:
            r, g, b = rgb / 255
            luma = 0.2126 * r + 0.7152 * g + 0.0722 * b
            y, u, v = 16 + 219 * luma, 128 + 224 * (b - luma) / 1.8556, 128 + 224 * (r - luma) / 1.5748
            data = np.frombuffer(
                packed(convert(np.full((4, 8, 3), rgb, np.uint8)), 8 if name == "nv12" else 16), np.uint8
            )
            wanted = [y] * 32 + [u, v] * 8 if name == "nv12" else [y, u, y, v] * 16
            np.testing.assert_allclose(data, wanted, atol=1)


def test_rows_are_as_far_apart_as_the_device_wants() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (6, 20, 3), np.uint8)
    for name, row in (("nv12", 20), ("yuyv422", 40)):
        shot = ToBt709(name)(rgb)
        tight = np.frombuffer(packed(shot, row), np.uint8).reshape(-1, row)
        wide = np.frombuffer(packed(shot, row + 24), np.uint8).reshape(-1, row + 24)
        np.testing.assert_array_equal(wide[:, :row], tight)
        assert not wide[:, row:].any()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("virtualcam:/dev/video99", r"no such device.*apt install v4l2loopback-dkms.*modprobe v4l2loopback"),
        ("virtualcam:/dev/null", r"not a video device.*modprobe v4l2loopback"),
        ("virtualcam:,fsp=30", "Did you mean 'fps'"),
        ("virtualcam:,fps=0", "from 1 to 240"),
        ("virtualcam:,fps=many", "fps is a number"),
        ("virtualcam:,format=rgb", "nv12 or yuyv"),
        ("virtualcam:,on-fault=stop", "hold or passthrough"),
    ],
)
def test_what_cannot_be_opened_says_how_to_get_it(url: str, said: str) -> None:
    with pytest.raises(SinkError, match=said):
        check(url)


def test_elsewhere_pyvirtualcam_is_the_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    opened: list[Any] = []

    def make(*size_and_rate: Any, device: str | None) -> Screen:
        opened.append((*size_and_rate, device))
        return screen

    monkeypatch.setattr(virtualcam.sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "pyvirtualcam", SimpleNamespace(Camera=make))
    check("virtualcam:OBS Virtual Camera,fps=100")
    sink = open_sink("virtualcam:OBS Virtual Camera,fps=100", INFO, SIZE)
    screen.wait_for(16)
    sink.close(True)
    assert opened == [(*SIZE, 100.0, "OBS Virtual Camera")]
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(SinkError, match=r"pip install 'warpfuse\[virtualcam\]'"):
        check("virtualcam:")


def test_a_window_says_what_to_use() -> None:
    with pytest.raises(SinkError, match="page:8080"):
        check("window:")
