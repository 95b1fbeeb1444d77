"""Sinks for other programs: what they call of the packages, and what is said where there is none.

NDI itself is in test_ndi.py. Spout and Syphon are stand-ins: neither Windows nor macOS is here. Their functions and
arguments are those of SpoutGL 0.1.1 and syphon-python 0.1.1.
"""

import sys
from fractions import Fraction
from types import ModuleType

import numpy as np
import pytest

from warpfuse.stages.errors import SinkError, SinkLost, SourceError
from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.sinks import check, open_sink
from warpfuse.stages.sources import open_source
from warpfuse.stages.stage import VideoInfo

SIZE = (6, 4)
INFO = VideoInfo(*SIZE, Fraction(25), Fraction(1, 25), live=True)
RGB = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)


def module(monkeypatch, name, **members):
    made = ModuleType(name)
    vars(made).update(members)
    monkeypatch.setitem(sys.modules, name, made)


@pytest.fixture
def spout(monkeypatch):
    """What a SpoutSender was asked for; `taken` is what it answers to a picture."""
    asked = {"taken": True, "sent": [], "released": 0}

    class SpoutSender:
        def setSenderName(self, name):  # noqa: N802
            asked["name"] = name

        def sendImage(self, pixels, width, height, form, invert, host):  # noqa: N802
            asked["sent"].append((np.array(pixels), width, height, form, invert, host))
            return asked["taken"]

        def releaseSender(self):  # noqa: N802
            asked["released"] += 1

    module(monkeypatch, "SpoutGL", SpoutSender=SpoutSender)
    module(monkeypatch, "SpoutGL.enums", GL_RGBA=0x1908)
    return asked


@pytest.fixture
def syphon(monkeypatch):
    """What a SyphonMetalServer was asked for."""
    asked = {"published": [], "stopped": 0}

    class Server:
        device = "the card"

        def __init__(self, name):
            asked["name"] = name

        def publish_frame_texture(self, texture, region=None, size=None, is_flipped=False):
            asked["published"].append((texture["image"].copy(), is_flipped))

        def stop(self):
            asked["stopped"] += 1

    def create(device, width, height):
        return {"size": (device, width, height)}

    def copy(image, texture):
        texture["image"] = image

    module(monkeypatch, "syphon", SyphonMetalServer=Server)
    module(monkeypatch, "syphon.utils", numpy=None)
    module(monkeypatch, "syphon.utils.numpy", copy_image_to_mtl_texture=copy)
    module(monkeypatch, "syphon.utils.raw", create_mtl_texture=create)
    return asked


def opaque(picture):
    return np.array_equal(picture[..., :3], RGB) and (picture[..., 3] == 255).all()


@pytest.mark.parametrize("url", ["spout:stage left", "spout://stage left"])
def test_spout_gets_each_picture_opaque_and_is_let_go_once(spout, url):
    sink = open_sink(url, INFO, SIZE)
    for number in range(2):
        sink.write(RawFrame(Stamp(number, number), RGB))
    sink.close(True)
    sink.close(True)
    assert (spout["name"], spout["released"], len(spout["sent"])) == ("stage left", 1, 2)
    picture, *rest = spout["sent"][1]
    assert opaque(picture) and rest == [*SIZE, 0x1908, False, 0]


def test_a_picture_that_spout_does_not_take_ends_the_sink_in_one_line(spout):
    spout["taken"] = False
    with pytest.raises(SinkLost, match="takes no picture as 'warpfuse'"):
        open_sink("spout:", INFO, SIZE).write(RawFrame(Stamp(0, 0), RGB))


def test_syphon_gets_each_picture_opaque_and_is_stopped_once(syphon):
    sink = open_sink("syphon://stage left", INFO, SIZE)
    sink.write(RawFrame(Stamp(0, 0), RGB))
    sink.close(True)
    sink.close(True)
    ((picture, _),) = syphon["published"]
    assert (syphon["name"], syphon["stopped"]) == ("stage left", 1) and opaque(picture)


@pytest.mark.parametrize("url, package", [("ndi:a", "cyndilib"), ("spout:a", "SpoutGL"), ("syphon:a", "syphon")])
def test_without_its_package_a_sink_is_refused_with_the_command_that_brings_it(url, package, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    scheme = url.partition(":")[0]
    with pytest.raises(SinkError, match=rf"pip install 'warpfuse\[{scheme}\]'"):
        check(url)


def test_without_its_package_the_source_is_refused_likewise(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "cyndilib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cyndilib", None)
    with pytest.raises(SourceError, match=r"pip install 'warpfuse\[ndi\]'"):
        open_source("ndi:a")


def test_a_sender_is_not_its_own_source(monkeypatch):
    module(monkeypatch, "cyndilib", sender=None)
    module(monkeypatch, "cyndilib.sender")
    check("ndi:a", source="ndi:b")
    with pytest.raises(SinkError, match="is the source as well"):
        check("ndi:a", source="ndi:a")
