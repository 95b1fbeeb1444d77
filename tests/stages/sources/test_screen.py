"""A real X server without a screen: what is drawn on it comes out."""

import os
import shutil
import subprocess

import numpy as np
import pytest

from warpfuse.stages.errors import SourceError, SourceLost
from warpfuse.stages.sources import open_source, probe


@pytest.fixture(scope="module")
def display():
    """A screen of 320x240; its root window is white (-wr)."""
    if shutil.which("Xvfb") is None:
        pytest.skip("no Xvfb: apt-get install xvfb")
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "320x240x24", "-nolisten", "tcp", "-wr"]
    server = subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL)
    os.close(writing)
    with os.fdopen(reading) as told:
        number = told.readline().strip()
    if not number:
        server.wait()
        pytest.skip("Xvfb does not start here")
    yield f":{number}"
    server.terminate()
    server.wait()


def test_what_is_on_the_screen_comes_out(display):
    source = open_source(f"screen:1@50,display={display}", frames=5)
    frames = [source.read() for _ in range(6)]
    source.close()
    assert (source.info.width, source.info.height, source.info.fps, source.info.live) == (320, 240, 50, True)
    assert frames[5] is None and all(
        frame.rgb[:100].mean() > 250 for frame in frames[:5]
    )  # the pointer is in the middle


def test_a_region_is_cut_out(display):
    info = probe(f"screen:100x60+10+20@10,display={display}")
    assert (info.width, info.height, info.fps) == (100, 60, 10)
    source = open_source(f"screen:100x60+10+20,display={display}", size=(50, 30))
    assert source.read().rgb.shape == (30, 50, 3) and source.read().rgb.dtype == np.uint8
    source.close()


@pytest.mark.parametrize(
    ("what", "words"),
    [("screen:400x60+0+0", "not all on the screen, which has 320x240"), ("screen:7", "no screen 7: 1 to 1")],
)
def test_what_is_not_on_the_screen_is_said(display, what, words):
    with pytest.raises(SourceLost, match=words):
        open_source(f"{what},display={display}")


def test_without_a_screen_the_error_says_what_to_set(monkeypatch):
    with pytest.raises(SourceLost, match=r"no screen to take.*Set DISPLAY"):
        open_source("screen:display=:9999")


@pytest.mark.parametrize("url", ["screen:left", "screen:1@0", "screen:1x1+0+0", "screen:@x", "screen:64x64@5"])
def test_an_address_that_is_not_understood_is_bad_input(url):
    with pytest.raises(SourceError):
        open_source(url)
