"""Hints of control maps: once a frame, in the bundle's order, at the scales of their levels, and each row its own."""

import pytest
import torch
from support.polynomial import Polynomial, conditioned, latent, specs

from warpfuse.engine.bundle_parts import Control
from warpfuse.engine.contract import TensorSpec
from warpfuse.engine.errors import BundleError
from warpfuse.graph.plan.config import validate
from warpfuse.stages.controls.settings import check_controls, stage_of
from warpfuse.stages.diffusion.denoise import Denoise
from warpfuse.stages.diffusion.hint import Hint, HintInputs
from warpfuse.stages.diffusion.predict import Predict
from warpfuse.stages.diffusion.schedule import PredictSettings, Sampling
from warpfuse.stages.diffusion.settings import FuseSettings, Guidance
from warpfuse.stages.errors import ControlError
from warpfuse.stages.frame import Hints, Latent, Picture, Stamp
from warpfuse.stages.solvers import open_solver
from warpfuse.stages.solvers.levels import level_at, levels

CPU = torch.device("cpu")
TABLE = levels()
KNOWN = (
    Control(name="edges", form="controlnet"),
    Control(name="sketch", form="adapter"),
    Control(name="depth", form="controlnet"),
)
C, F, STEPS = 4, 5, 3
SHAPES = {"hint": (2, C, 8, 8), "control_scale": (2,), "features": (1, F), "adapter_scale": (1,)}


def inputs(shapes, batch=None):
    return (*specs(batch), *(TensorSpec(name, "float32", (batch, *shape)) for name, shape in shapes.items()))


class Steered(Polynomial):
    """Adds what the controls give, each at its scale."""

    def __init__(self, batch=None):
        super().__init__(batch)
        self.inputs, self.fed = inputs(SHAPES, batch), []

    def __call__(self, inputs):
        self.fed.append({name: tensor.clone() for name, tensor in inputs.items()})
        output = super().__call__(inputs)["output"]
        for column, gain in enumerate((0.5, 0.25)):
            scale = inputs["control_scale"][:, column, None, None, None]
            output = output + gain * scale * inputs["hint"][:, column]
        told = inputs["adapter_scale"][:, 0] * inputs["features"][:, 0].sum(1)
        return {"output": output + 0.125 * told[:, None, None, None]}


class Lent:
    """A network of a control whose output is written over by its next call."""

    def __init__(self, name, shape):
        self.name, self.out, self.calls, self.closed = name, torch.zeros(1, *shape), 0, False

    def __call__(self, inputs):
        self.calls += 1
        self.out.fill_(float(inputs["rgb"].mean()))
        return {self.name: self.out}

    def close(self):
        self.closed = True


def settings(controls, **changes):
    told = validate({"controls": {name: {"kind": "canny", **keys} for name, keys in controls.items()}}).controls
    return PredictSettings(
        **{"conditioning": conditioned(0.4, 0.2), "strength": 1.0, "steps": STEPS, "fuse": FuseSettings(),
           "controls": told, **changes}
    )  # fmt: skip


def sampling(known=KNOWN):
    return Sampling("sample", open_solver("lcm"), lambda t: level_at(TABLE, t), 900.0, 100.0, True, controls=known)


def made(unet, controls, stream=False, **changes):
    hints = HintInputs(KNOWN, unet.inputs, CPU)
    return Predict(
        Denoise(unet, sampling()), sampling(), settings(controls, **changes), 0, "cpu", stream=stream, hints=hints
    )


def hints(seq):
    random = torch.Generator().manual_seed(seq)
    given = {"edges": torch.randn(1, C, 8, 8, generator=random), "sketch": torch.randn(1, F, generator=random)}
    return Hints(Stamp(seq, 0), given)


def source(seq):
    return Latent(Stamp(seq, 0), latent(seq))


BOTH = {"edges": {"scale": 0.5, "window": [500, 1000]}, "sketch": {"scale": 1.5}}


def test_a_row_is_fed_the_hints_of_its_frame_in_the_order_of_the_bundle():
    unet = Steered()
    made(unet, BOTH)(source(1), hints=hints(1))
    assert len(unet.fed) == STEPS
    for fed in unet.fed:
        assert torch.equal(fed["hint"][:, 0], hints(1).by_control["edges"])
        assert not fed["hint"][:, 1].any(), "depth is not used by this run"
        assert torch.equal(fed["features"][:, 0], hints(1).by_control["sketch"])
        assert fed["control_scale"][0, 1] == 0 and fed["adapter_scale"].tolist() == [[1.5]]
    scales = [fed["control_scale"][0, 0].item() for fed in unet.fed]
    assert scales == [0.5, 0.5, 0.0], "the last of three calls is below the window"


@pytest.mark.parametrize("mode", ["none", "full"])
def test_a_run_without_controls_and_one_at_scale_0_are_the_same_to_the_bit(mode):
    guidance = Guidance(mode=mode, scale=3.0)
    off = {name: {**keys, "scale": 0} for name, keys in BOTH.items()}
    without = made(Steered(), {}, guidance=guidance)(source(1)).z
    assert torch.equal(made(Steered(), off, guidance=guidance)(source(1), hints=hints(1)).z, without)
    on = made(Steered(), BOTH, guidance=guidance)(source(1), hints=hints(1)).z
    assert (on - without).abs().max() > 0.01, "the control: they do something"


def test_both_rows_of_guidance_have_the_hint():
    unet = Steered(batch=2)
    made(unet, BOTH, guidance=Guidance(mode="full", scale=3.0))(source(1), hints=hints(1))
    assert all(torch.equal(fed["hint"][0], fed["hint"][1]) and fed["hint"].any() for fed in unet.fed)


def test_a_stream_batch_gives_each_frame_its_own_hint_and_its_own_scale():
    """Hints are lent, and settings change while frames are in the batch."""
    lent = hints(0)
    streamed, alone = made(Steered(), BOTH, stream=True), made(Steered(), BOTH)
    changed = settings({"edges": {"scale": 1.0}})
    found, wanted = [], []
    for seq in range(8):
        if seq == 4:
            streamed.update(changed)
            alone.update(changed)
        for name, tensor in hints(seq).tensors.items():
            lent.by_control[name].copy_(tensor)
        found.append(streamed(source(seq), hints=Hints(Stamp(seq, 0), lent.tensors)))
        wanted.append(alone(source(seq), hints=hints(seq)).z)
    while (late := streamed.flush()) is not None:
        found.append(late)
    latents = [frame.z for frame in found if frame is not None]
    assert len(latents) == 8
    assert all(torch.equal(a, b) for a, b in zip(latents, wanted, strict=True))
    assert not torch.equal(alone(source(3), hints=hints(3)).z, wanted[3]), "the control: another scale"


def test_the_network_of_a_control_runs_once_a_frame_and_what_it_gives_is_kept():
    engines = {"edges": Lent("hint", (C, 8, 8)), "sketch": Lent("features", (F,))}
    stage = Hint(KNOWN, engines)

    def maps(seq):
        return {stage_of(name): Picture(Stamp(seq, 0), torch.full((1, 3, 64, 64), seq / 10)) for name in engines}

    first, second = stage(**maps(1)), stage(**maps(2))
    assert first.stamp.seq == 1 and [engine.calls for engine in engines.values()] == [2, 2]
    assert torch.allclose(first.by_control["edges"], torch.tensor(0.1)) and torch.allclose(
        second.by_control["sketch"], torch.tensor(0.2)
    )
    assert not stage.held(**maps(3)).tensors and engines["edges"].calls == 2, "a held frame is spared"
    stage.close()
    assert all(engine.closed for engine in engines.values())


def test_a_network_that_does_not_take_what_the_bundle_lists_is_refused():
    fewer = inputs({**SHAPES, "hint": (1, C, 8, 8)})
    with pytest.raises(
        BundleError, match=r"unet: 'hint' is of 1 controls, the bundle lists 2\. Export the bundle again"
    ):
        HintInputs(KNOWN, fewer, CPU)
    with pytest.raises(BundleError, match="'hint' is of 2 controls, the bundle lists 0"):
        HintInputs((), inputs(SHAPES), CPU)
    HintInputs(KNOWN, inputs(SHAPES), CPU)


def test_a_control_that_the_bundle_does_not_have_is_one_line():
    check_controls(["edges"], KNOWN)
    with pytest.raises(
        ControlError, match=r"no control called 'edge'; did you mean 'edges'\? This bundle has: edges, s"
    ):
        check_controls(["edge"], KNOWN)
    with pytest.raises(
        ControlError, match=r"has no control\. Export it again: warpfuse export SOURCE --control edges="
    ):
        check_controls(["edges"], ())
