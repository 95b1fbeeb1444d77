"""A file decoded on the simulated card, by a stand-in for NVDEC: the host's pictures, which stay on the card."""

from functools import partial
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from support import exact
from support.card import card
from support.card.tensors import plain
from support.in_process import shown_by

from warpfuse.engine.cuda_streams import new_stream, on
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import validate
from warpfuse.graph.runtime.context import prepare_source
from warpfuse.graph.runtime.endpoints import endpoints_of
from warpfuse.graph.runtime.realtime import Looped, RealTime
from warpfuse.stages.card_decoder import CardDecoder
from warpfuse.stages.errors import SourceError
from warpfuse.stages.frame import CardFrame
from warpfuse.stages.geometry.framing import Framing
from warpfuse.stages.sources import probe
from warpfuse.stages.sources.file import FileSource
from warpfuse.stages.transfer.upload import Upload

CARD = "cuda:0"
WIDTH, HEIGHT = 64, 48


class OnCard:
    """A decoded frame as PyAV gives it of a card: its planes by DLPack, its attributes those of the host's frame."""

    format = SimpleNamespace(name="cuda", is_rgb=False)

    def __init__(self, sim, frame):
        self.host, self.sw_format = frame, SimpleNamespace(name="nv12")
        nv12 = torch.from_numpy(frame.reformat(format="nv12").to_ndarray())
        with sim.cuda.stream(sim.default):
            self.memory = nv12.to(CARD)
        y, uv = self.memory[: frame.height], self.memory[frame.height :].view(frame.height // 2, -1, 2)
        self.planes = [SimpleNamespace(__dlpack__=partial(torch.utils.dlpack.to_dlpack, plain(x))) for x in (y, uv)]

    def __getattr__(self, name):
        return getattr(self.host, name)


class StandIn(CardDecoder):
    """Decodes on the host, and puts the pictures onto the simulated card. most: pictures that stay there."""

    def __init__(self, sim, most=99):
        super().__init__(CARD)
        self.sim, self.most = sim, most

    def settings(self):
        return None

    def takes(self, frame):
        self.most -= 1
        return self.most >= 0 and super().takes(OnCard(self.sim, frame))

    def compare(self, frame, codec, to_host):
        super().compare(OnCard(self.sim, frame), codec, lambda given: to_host(given.host))

    def taken(self, stamp, frame, to_host):
        return super().taken(stamp, OnCard(self.sim, frame), lambda given: to_host(given.host))


@pytest.fixture
def clip(make_clip):
    ramp = np.linspace(0, 255, WIDTH, dtype=np.uint8)
    soft = [np.stack(np.broadcast_arrays(ramp + 3 * n, ramp[:HEIGHT, None], 90), -1).astype(np.uint8) for n in range(5)]
    return make_clip("soft.mp4", soft, colour={"colorspace": 1, "color_range": 1}, options={"qp": "0"})


def frames_of(source):
    while (frame := source.read()) is not None:
        yield frame
    source.close()


def test_pictures_are_the_hosts_to_the_byte_there_and_within_a_level_on_the_card(clip):
    expected = list(frames_of(FileSource(clip)))
    with card() as sim, on(new_stream(CARD)):
        upload, shown = Upload((WIDTH, HEIGHT), CARD), []
        for frame in frames_of(FileSource(clip, decoder=StandIn(sim))):
            assert isinstance(frame, CardFrame)
            before = sim.kernels.total()
            rgb = upload(frame).rgb
            moved = [name for _, name in sim.kernels if " to device" in name or "to pinned" in name]
            assert sim.kernels.total() > before and set(moved) <= {"pageable to device"}, "the stand-in's own"
            shown.append((frame.stamp, frame.rgb, (255 * rgb.cpu()).round()[0].permute(1, 2, 0).int().numpy()))
        upload.close()
    assert [stamp for stamp, _, _ in shown] == [frame.stamp for frame in expected]
    for (_, host, there), frame in zip(shown, expected, strict=True):
        assert np.array_equal(host, frame.rgb)
        assert np.abs(there - frame.rgb.astype(int)).max() <= 1
    assert not sim.races, "\n".join(map(str, sim.races[:3]))


def test_a_part_of_it_is_that_of_the_host(clip):
    framing = Framing((WIDTH, HEIGHT), (48, 48), (48, 48))
    part = framing.part((WIDTH, HEIGHT))
    with card() as sim, on(new_stream(CARD)):
        frame = next(frames_of(FileSource(clip, decoder=StandIn(sim))))
        cut = CardFrame(frame.stamp, frame.decoded.part(part.left, part.top, part.width, part.height))
        assert np.array_equal(cut.rgb, framing(frame.rgb)) and cut.decoded.size == (48, 48)
        there = (255 * cut.decoded.planes().cpu()).round()[0].permute(1, 2, 0).int().numpy()
        assert np.abs(there - cut.rgb.astype(int)).max() <= 1
    assert Framing((WIDTH, HEIGHT), (48, 48), (48, 48), rotate=90).part((WIDTH, HEIGHT)) is None
    assert Framing((WIDTH, HEIGHT), (48, 48), (48, 48), fit="letterbox").part((WIDTH, HEIGHT)) is None


def test_a_clip_that_is_looped_or_played_stays_on_the_card_too(clip):
    with card() as sim:
        played = RealTime(Looped(lambda: FileSource(clip, decoder=StandIn(sim))), lambda: 0, lambda s: None)
        frames = [played.read() for _ in range(7)]
        played.close()
    assert all(isinstance(frame, CardFrame) for frame in frames)
    assert [(frame.stamp.seq, frame.stamp.discontinuity) for frame in frames] == [(n, n == 5) for n in range(7)]
    assert np.array_equal(frames[5].rgb, frames[0].rgb)


def test_what_does_not_stay_on_the_card_is_told_once_and_is_the_hosts(clip):
    expected = [frame.rgb for frame in frames_of(FileSource(clip))]
    with card() as sim:
        source = FileSource(clip, decoder=StandIn(sim, most=2))
        found = [(isinstance(frame, CardFrame), frame.rgb) for frame in frames_of(source)]
    assert [stays for stays, _ in found] == [True, True, False, False, False]
    assert all(np.array_equal(rgb, host) for (_, rgb), host in zip(found, expected, strict=True))
    assert source.warning.count("decoder card: pictures are taken on the host") == 1


def test_a_card_that_does_not_decode_is_told_in_one_line(clip):
    """Here: the simulated one, of which FFmpeg knows nothing."""
    try:
        av.codec.hwaccel.HWAccel("cuda").create(av.Codec("h264", "r"))
        pytest.skip("there is a card that decodes")
    except Exception as error:  # noqa: BLE001
        assert error
    with card(), pytest.raises(SourceError, match=r"decoder: cuda:0 was asked for.* Give decoder=host") as told:
        FileSource(clip, decoder=CardDecoder(CARD))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("codec, colour", [("libx264", {"colorspace": 5, "color_range": 2}), ("libvpx-vp9", {})])
def test_where_chroma_lies_is_learnt_from_the_first_picture(make_clip, codec, colour):
    """H.264 has it on the left. VP9 does not tell."""
    ramp = np.linspace(0, 255, WIDTH, dtype=np.uint8)
    soft = np.stack(np.broadcast_arrays(ramp, ramp[:HEIGHT, None], 90), -1).astype(np.uint8)
    path = make_clip("soft.webm" if "vp9" in codec else "soft.mp4", [soft] * 2, codec=codec, colour=colour)
    with card() as sim, on(new_stream(CARD)):
        frame = next(frames_of(FileSource(path, decoder=StandIn(sim))))
        there = (255 * frame.decoded.planes().cpu()).round()[0].permute(1, 2, 0).int().numpy()
        assert np.abs(there - frame.rgb.astype(int)).max() <= 1


def test_a_run_takes_them_where_they_are(clip, short_folder):
    """And its pictures are those of a run that decodes on the host, but for what rounding makes of a level."""

    def shown(**options):
        keys = {"source": str(clip), "sinks": ["null:"], "device": CARD, "backend": "onnxruntime", "fusion": 0}
        _, context = prepare_source(validate({**keys, "bundle": bundle, "prompt": "negative"}))
        uploads = sim.kernels["", "pinned to device"] + sim.kernels["upload", "pinned to device"]
        found = shown_by(context, lambda: FileSource(clip, context.size, **options), rewind=False)
        now = sim.kernels["", "pinned to device"] + sim.kernels["upload", "pinned to device"]
        return [rgb.astype(int) for rgb in found], now - uploads

    bundle = exact.write(short_folder / "exact")
    with card() as sim:
        expected, uploaded = shown()
        found, copied = shown(decoder=StandIn(sim))
    assert len(found) == len(expected) == 5 and uploaded >= 5 > copied
    assert max(np.abs(a - b).max() for a, b in zip(found, expected, strict=True)) <= 1
    assert not sim.races, "\n".join(map(str, sim.races[:3]))


def test_a_source_that_is_no_file_is_refused():
    config = validate({"source": "pattern:64x48", "sinks": ["null:"], "device": CARD, "decoder": "card"})
    ends = endpoints_of(config, probe("pattern:64x48"), (64, 48))
    with pytest.raises(ConfigError, match="decoder: card takes video files, the source is pattern:64x48"):
        ends.source()


def test_it_is_refused_without_a_card():
    with pytest.raises(ConfigError, match="decoder: card decodes on the run's device, got cpu"):
        validate({"decoder": "card"})
    assert validate({"decoder": "card", "device": "cuda"}).decoder == "card"
