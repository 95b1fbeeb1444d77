"""The loop replayed as CUDA graphs, on the simulated card: its pictures are those of the stages called one by one."""

from typing import NamedTuple

import pytest
import torch
from support import exact
from support.card import card
from support.card.sites import sites

from warpfuse.engine.cuda_streams import new_stream, on
from warpfuse.graph.plan.config import validate
from warpfuse.graph.runtime.build import open_stage, settings_of
from warpfuse.graph.runtime.context import prepare
from warpfuse.stages.frame import Frame, Latent, Motion, Picture, Stamp
from warpfuse.stages.loop import Loop, LoopCall
from warpfuse.stages.stage import process

CARD, SIZE = "cuda:0", (48, 32)
COPIES = ["stages.loop:Loop._copy_in:copy:1", "stages.loop:_copies:copy:1"]


class Script(NamedTuple):
    """A frame of the script. keys: settings from this frame on."""

    hold: str = ""
    cut: bool = False
    keys: dict = {}  # noqa: RUF012


USUAL, CUT = Script(), Script(cut=True)
MOVED = [Script(keys={"stages": {"fuse": {"weight": 0.5 + n / 10}}}) for n in range(3)]
PROMPTS = [Script(keys={"prompt": "same"}), Script(keys={"prompt": "noisy:0.4, same"})]
STRONGER = [Script(keys={"strength": 0.4}), USUAL, USUAL]
SCRIPT = [
    *[USUAL] * 4, CUT, USUAL, USUAL, *[Script(hold="warp")] * 3, *[Script(hold="repeat")] * 2, USUAL,
    *MOVED, *PROMPTS, CUT, USUAL, *STRONGER,
]  # fmt: skip
SHORT = [*[USUAL] * 4, *[Script(hold="warp")] * 3, *MOVED]


class Rig:
    """The stages of a loop, called with frames of a script; replayed, or one by one."""

    def __init__(self, folder, *, printed=False, replayed=True):
        bundle = folder / ("printed" if printed else "plain")
        if not bundle.exists():
            exact.write(bundle, lines=printed)
        self.keys = {"bundle": str(bundle), "device": CARD, "backend": "tensorrt", "size": list(SIZE), "steps": 2}
        self.context = prepare(validate(self.keys), SIZE, lambda line: None)
        self.kinds = ["warp", "encode_past", "predict", "fuse", "decode", *(["composite"] if printed else [])]
        self.stages = [open_stage(kind, self.context) for kind in self.kinds]
        self.said, self.replays, self.printed = [], 0, printed
        self.loop = Loop(self.stages, [len(self.stages) - 1], CARD, self.said.append) if replayed else None
        self.last = None

    def pictures(self, script, captures=lambda: 0):
        """Of each frame, on the host; and how many graphs were captured for it."""
        shown = []
        for n, one in enumerate(script):
            before = captures()
            self._update(one.keys)
            calls = self._calls(n, one)
            given = self.loop(calls) if self.loop is not None else None
            self.replays += given is not None
            self.last = self._one_by_one(calls) if given is None else given[-1]
            shown.append((self.last.rgb.cpu().tolist(), captures() - before))
        return [rgb for rgb, _ in shown], [count for _, count in shown]

    def close(self):
        if self.loop is not None:
            self.loop.close()
        for stage in self.stages:
            stage.close()
        self.context.close()

    def _update(self, keys):
        if keys:
            self.keys |= keys
            config = validate(self.keys)
            for kind, stage in zip(self.kinds, self.stages, strict=True):
                if (pick := settings_of(kind, self.context.prompts)) is not None:
                    stage.update(pick(config, None))

    def _calls(self, n, one):
        w, h = SIZE
        stamp = Stamp(n, n, discontinuity=one.cut, hold=one.hold)
        drawn = torch.Generator().manual_seed(n)
        flow, trust, z, rgb = (
            torch.rand(shape, generator=drawn).to(CARD)
            for shape in ((1, 2, h, w), (1, 1, h, w), (1, exact.CHANNELS, h // 8, w // 8), (1, 3, h, w))
        )
        motion = Frame(stamp) if one.hold == "repeat" else Motion(stamp, 4 * flow - 2, trust)
        source = Frame(stamp) if one.hold else Latent(stamp, z)
        past = self.last and Picture(self.last.stamp, self.last.rgb, self.last.paint, self.last.cover)
        inputs = [
            {"motion": motion, "styled": past}, {"frame": 0}, {"source": source, "reference": 1},
            {"prediction": 2, "reference": 1}, {"latent": 3, "past": 0},
        ]  # fmt: skip
        if self.printed:
            inputs.append({"paint": 4, "latent": 3, "source": Picture(stamp, rgb), "past": 0})
        return [LoopCall(stamp, one) for one in inputs]

    def _one_by_one(self, calls):
        given = []
        for stage, call in zip(self.stages, calls, strict=True):
            inputs = {port: given[x] if isinstance(x, int) else x for port, x in call.inputs.items()}
            given.append(process(stage, inputs, call.stamp.hold))
        return given[-1]


def run(sim, folder, script=SCRIPT, **keys):
    with on(new_stream(CARD)):
        rig = Rig(folder, **keys)
        try:
            return *rig.pictures(script, lambda: sim.captured), rig
        finally:
            rig.close()


@pytest.mark.parametrize("script, printed", [(SCRIPT, False), (SHORT, True)], ids=["plain", "printed"])
def test_replayed_and_one_by_one_are_the_same_to_the_bit(tmp_path, script, printed):
    with card() as sim:
        replayed, captures, rig = run(sim, tmp_path, script, printed=printed)
        expected, _, _ = run(sim, tmp_path, script, printed=printed, replayed=False)
    assert replayed == expected and not rig.said
    assert not sim.races, "\n".join(map(str, sim.races[:3]))
    moved = [n for n, one in enumerate(script) if one in MOVED + PROMPTS]
    assert [captures[n] for n in moved] == [0] * len(moved), "a slider captures nothing"
    assert all(expected[n] != expected[n - 1] for n in moved) and rig.replays >= len(script) / 2


@pytest.mark.parametrize("place", COPIES)
def test_what_is_not_copied_is_missed(tmp_path, place):
    """Control of the test above, and of the simulated card."""
    with card() as sim:
        expected, _, _ = run(sim, tmp_path, SCRIPT[:7], replayed=False)
        sim.without.add(sites()[place])
        replayed, _, _ = run(sim, tmp_path, SCRIPT[:7])
    assert sim.skipped and replayed != expected


def test_what_cannot_be_captured_is_said_once_and_called_one_by_one(tmp_path):
    class Waiting:
        """A decoder that waits for the device."""

        backend, device, capturable = "test", CARD, True

        def __init__(self, engine):
            self.engine, self.inputs, self.outputs = engine, engine.inputs, engine.outputs

        def __call__(self, inputs):
            float(inputs["latent"].sum())
            return self.engine(inputs)

        def close(self):
            self.engine.close()

    with card() as sim, on(new_stream(CARD)):
        expected, _, _ = run(sim, tmp_path, SCRIPT[:6], replayed=False)
        rig = Rig(tmp_path)
        decoder = rig.context.engines.open(rig.context.bundle.network("decoder"), {"latent": (1, exact.CHANNELS, 4, 6)})
        kinds = dict(zip(rig.kinds, rig.stages, strict=True))
        kinds["decode"].close()
        rig.stages[4] = type(kinds["decode"])(Waiting(decoder), 1.0)
        rig.loop = Loop(rig.stages, [4], CARD, rig.said.append)
        got, _ = rig.pictures(SCRIPT[:6])
        rig.close()
    assert got == expected and rig.replays == 0
    assert len(set(rig.said)) == 1 and "runs stage by stage: it cannot be captured: CUDA error" in rig.said[0]
    assert not sim.captures
