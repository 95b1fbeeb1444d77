"""Half precision: the graph has it, and where it would overflow or blur a timestep there are islands."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from torch import nn

from warpfuse.engine.artifacts import ArtifactCache
from warpfuse.engine.tensorrt_build import plan_for
from warpfuse.engine.tensorrt_module import TENSORRT_RTX, not_installed
from warpfuse.export.diffusion.half import to_half
from warpfuse.export.onnx_writing import trace


def converted(network, inputs, outputs, **options):
    model = trace(network, inputs, outputs)
    to_half(model, **{"products_in_single": False, **options})
    return model


def run(model, inputs):
    session = ort.InferenceSession(model.SerializeToString())
    return session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})


class Angles(nn.Module):
    """A timestep as sines, then a layer: what a UNet does with it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("frequencies", torch.exp(-torch.arange(16) * 0.5))
        self.layer = nn.Linear(32, 32)

    def forward(self, timestep):
        angles = timestep[:, None] * self.frequencies
        return self.layer(torch.cat((angles.sin(), angles.cos()), dim=1))


def test_a_timestep_keeps_its_fraction():
    torch.manual_seed(0)
    inputs = {"timestep": torch.tensor([998.75, 501.3])}  # half precision has steps of a half there
    wanted = Angles()
    (found,) = run(converted(wanted.eval(), inputs, ["y"]), inputs)
    blurred = wanted(inputs["timestep"].half().float()).detach().numpy()
    assert np.abs(found - wanted(inputs["timestep"]).detach().numpy()).max() < 5e-3
    assert np.abs(blurred - wanted(inputs["timestep"]).detach().numpy()).max() > 2e-2  # the control: no island


class Attention(nn.Module):
    """Products of queries and keys that pass 65504 before they are scaled down."""

    def forward(self, q, k):
        return ((q @ k.transpose(1, 2)) * 1e-3).softmax(-1)


@pytest.mark.parametrize("guarded", [True, False])
def test_products_before_a_softmax_overflow_unless_they_are_an_island(guarded):
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 8, 64, generator=generator) * 150 for _ in range(2))
    model = converted(Attention(), {"q": q, "k": k}, ["y"], products_in_single=guarded)
    with np.errstate(all="ignore"):  # ONNX Runtime would compute in single precision on a CPU; this does as it is told
        (found,) = ReferenceEvaluator(model).run(None, {"q": q.numpy(), "k": k.numpy()})
    gap = np.abs(found - Attention()(q, k).numpy()).max()
    assert gap < 2e-3 if guarded else not gap < 0.5  # not a number, mostly


class Fused(nn.Module):
    """Attention as torch has it."""

    def forward(self, q, k, v, mask=None):
        return nn.functional.scaled_dot_product_attention(q, k, v, mask)


def attention(tokens, keys, width, heads=2, mask=None):
    generator = torch.Generator().manual_seed(0)
    shapes = {"q": (1, heads, tokens, width), "k": (1, heads, keys, width), "v": (1, heads, keys, width)}
    inputs = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return inputs | ({"mask": torch.randn(mask, generator=generator)} if mask else {})


@pytest.mark.parametrize(
    "tokens, keys, width, mask",
    [
        pytest.param(1024, 1024, 64, None, id="self, SD 2 and XL"),
        pytest.param(1024, 77, 64, None, id="cross, SD 2 and XL"),
        pytest.param(1024, 1024, 40, None, id="self, SD 1.5 outside"),
        pytest.param(1024, 77, 40, None, id="cross, SD 1.5 outside"),
        pytest.param(256, 256, 80, None, id="self, SD 1.5"),
        pytest.param(64, 64, 160, None, id="self, SD 1.5 inside"),
        pytest.param(1024, 3072, 64, (1, 1, 1, 3072), id="with a weight of each key"),
    ],
)
@pytest.mark.parametrize("products", [False, True])
def test_attention_is_one_kernel_of_tensorrt(rtx, tmp_path, tokens, keys, width, mask, products):
    """An island for products that were scaled down before would part it."""
    inputs = attention(tokens, keys, width, mask=mask)
    assert fused(rtx, tmp_path, converted(Fused(), inputs, ["y"], products_in_single=products))


def test_attention_with_an_island_is_several_kernels(rtx, tmp_path):
    """The control: the products of this one are not scaled before they are made."""

    class Unscaled(nn.Module):
        def forward(self, q, k, v):
            return ((q @ k.transpose(2, 3)) * 0.125).softmax(-1) @ v

    model = converted(Unscaled(), attention(1024, 1024, 64), ["y"], products_in_single=True)
    assert not fused(rtx, tmp_path, model)


@pytest.fixture
def rtx():
    reason = not_installed(TENSORRT_RTX)
    if reason is not None:
        pytest.skip(reason)
    return TENSORRT_RTX


def fused(rtx, folder, model):
    """Whether the plan for an RTX 40 has the kernel of a whole attention."""
    onnx.save(model, folder / "attention.onnx")
    plan = plan_for(rtx, folder / "attention.onnx", None, "sm89", ArtifactCache(folder / "plans"))
    return b"_gemm_mha_v2" in plan.read_bytes()


class Block(nn.Module):
    """Norms, a convolution, an up-sampling; the second output is used inside too."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.last = nn.LayerNorm(12)

    def forward(self, x):
        middle = self.conv(self.norm(x))
        return self.last(nn.functional.interpolate(middle, scale_factor=2.0)), middle


def test_types_lie_in_the_graph_and_its_ends_keep_theirs():
    torch.manual_seed(0)
    inputs = {"x": torch.randn(1, 8, 6, 6) * 3}
    network = Block().eval()
    model = converted(network, inputs, ["y", "middle"])
    ends = [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)]
    assert ends == [TensorProto.FLOAT] * 3
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    by_type = {node.op_type: node for node in model.graph.node}
    assert weights[by_type["Conv"].input[1]].data_type == TensorProto.FLOAT16
    assert weights[by_type["LayerNormalization"].input[1]].data_type == TensorProto.FLOAT
    for found, wanted in zip(run(model, inputs), network(inputs["x"]), strict=True):
        gap = np.abs(found - wanted.detach().numpy()).max()
        assert 0 < gap < 2e-2  # near, and not by having stayed in single precision


def test_a_mask_of_the_lowest_number_becomes_minus_infinity():
    class Masked(nn.Module):
        def forward(self, x):
            return (x + torch.full((4, 4), torch.finfo(torch.float32).min).triu(1)).softmax(-1)

    x = {"x": torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(0))}
    (found,) = run(converted(Masked(), x, ["y"]), x)
    assert np.abs(found - Masked()(x["x"]).numpy()).max() < 2e-3
