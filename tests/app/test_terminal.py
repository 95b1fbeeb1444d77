"""What a terminal shows: the address as a code that a phone can read."""

import re

import cv2
import numpy as np
import pytest

pytest.importorskip("segno", reason="the control page needs the extra 'web'")

from warpfuse.terminal import qr_code

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
