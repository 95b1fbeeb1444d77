"""What a terminal shows: the address as a code that a phone can read."""

import re
from dataclasses import replace

import cv2
import numpy as np
import pytest

pytest.importorskip("segno", reason="the control page needs the extra 'web'")

from warpfuse.graph.metrics.meters import FrameCounts, Meter
from warpfuse.graph.metrics.report import Setup, stats_of
from warpfuse.terminal import console, finish, qr_code

URL = "http://192.168.1.20:8080/?token=Zr8yV3nN5w0c-m3xQ1b7pT2kLhG6sD4f"
HALVES = {" ": (0, 0), "\u2580": (1, 0), "\u2584": (0, 1), "\u2588": (1, 1)}


def photographed(shown):
    """The code as a phone's camera sees it: uint8 grey, ten pixels a module."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in shown.split("\n")]
    modules = [[HALVES[char][half] for char in line] for line in lines for half in (0, 1)]
    return np.kron(255 * (1 - np.array(modules, np.uint8)), np.ones((10, 10), np.uint8))


def test_the_code_of_an_address_is_read_as_that_address():
    """By OpenCV's reader, which shares nothing with the writer."""
    told, *_ = cv2.QRCodeDetector().detectAndDecode(photographed(qr_code(URL)))
    assert told == URL


def test_every_line_sets_its_colours_and_puts_them_back():
    for line in qr_code(URL).split("\n"):
        assert line.startswith("\x1b[30;107m") and line.endswith("\x1b[0m")


def test_the_last_line_tells_what_was_waited_for_and_missed_as_far_as_there_was_any():
    def last_line(told):
        nothing = stats_of([], Setup("onnxruntime", "float", "cpu", "exact", (96, 64), (96, 64), 1))
        with console.capture() as shown:
            assert finish(replace(nothing, **told), None) == 0
        return " ".join(shown.get().split())

    control = Meter()
    control.record(40_000_000)
    frames = FrameCounts(into=10, out=8, dropped=2)
    drops = {"late": 2, "paused": 0, "failed": 0, "restart": 0}
    told = last_line({"control": control, "first_picture_s": 1.25, "frames": frames, "drops": drops})
    assert told.endswith("p99 0; first picture after 1.2 s; a control after 40 ms, p95 40; 20.0% dropped")
    assert last_line({}).endswith("p99 0")
