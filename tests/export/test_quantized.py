"""A UNet with 8-bit products: only products with weights, as near as their bits, and attention is still one kernel."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, numpy_helper
from support.random_checkpoint import write_random_checkpoint
from torch import nn

from warpfuse.engine.artifacts import ArtifactCache
from warpfuse.engine.bundle import load_bundle
from warpfuse.engine.tensorrt_build import plan_for
from warpfuse.engine.tensorrt_module import TENSORRT_RTX, not_installed
from warpfuse.export.diffusion.bundle import Request, export_checkpoint
from warpfuse.export.diffusion.checkpoint import open_checkpoint
from warpfuse.export.diffusion.half import to_half
from warpfuse.export.diffusion.quantized import (
    LEAST_DB,
    Quantization,
    alphas_cumprod_of,
    check_fidelity,
    clean,
    parse_kind,
    products,
    quantize,
    typical,
)
from warpfuse.export.onnx_writing import ExportError, trace

KINDS = ("int8", "fp8")
LEAST_BITS = {"int8": 0.02, "fp8": 0.05}  # a step over the range, with some room for sums of them


class Block(nn.Module):
    """What a UNet has: ends of few channels, a convolution, attention to itself and to a prompt."""

    def __init__(self, width=64, heads=1):
        super().__init__()
        from diffusers.models.attention import BasicTransformerBlock

        self.enter, self.leave = nn.Conv2d(4, width, 3, padding=1), nn.Conv2d(width, 4, 3, padding=1)
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.block = BasicTransformerBlock(width, heads, 64, cross_attention_dim=32)

    def forward(self, x, context):
        h = self.conv(self.enter(x))
        tokens = self.block(h.flatten(2).transpose(1, 2), encoder_hidden_states=context)
        return self.leave(h + tokens.transpose(1, 2).reshape(h.shape))


def inputs(size=8, seed=0):
    random = torch.Generator().manual_seed(seed)
    return {"x": torch.randn(1, 4, size, size, generator=random), "context": torch.randn(1, 77, 32, generator=random)}


def made(network, kind, size=8, scale=1.0):
    """The model quantised; scale: of the inputs that it is calibrated on."""
    feeds = [{name: scale * x for name, x in inputs(size, seed).items()} for seed in range(3)]
    model = trace(network, feeds[0], ["y"])
    seen = Quantization(kind, feeds, feeds[:1]).ranges(model, onnx.ModelProto.SerializeToString)
    to_half(model, products_in_single=False)
    quantize(model, kind, seen)
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Block().eval()


@pytest.mark.parametrize("kind", KINDS)
def test_products_with_weights_are_rounded_to_their_bits(network, kind):
    given = inputs(seed=9)
    (found,) = ort.InferenceSession(made(network, kind).SerializeToString()).run(
        None, {name: x.numpy() for name, x in given.items()}
    )
    wanted = network(*given.values()).detach().numpy()
    far = np.abs(found - wanted).mean() / np.abs(wanted).mean()
    assert 1e-3 < far < LEAST_BITS[kind], "rounded, and no more"
    clipped = made(network, kind, scale=0.1)
    (worse,) = ort.InferenceSession(clipped.SerializeToString()).run(None, {n: x.numpy() for n, x in given.items()})
    assert np.abs(worse - wanted).mean() > 3 * np.abs(found - wanted).mean(), "the control: another calibration"


@pytest.mark.parametrize("kind", KINDS)
def test_attention_the_ends_and_what_sees_the_prompt_alone_stay_in_half(network, kind):
    model = made(network, kind)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    kinds = {"int8": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}
    weights = [tensor for tensor in stored.values() if tensor.data_type == kinds[kind] and len(tensor.dims) > 1]
    linear = 2 + 4 + 2  # to_q and to_out of the cross-attention, four of the self-attention, two of the feed-forward
    assert len(weights) == linear + 1
    for tensor in weights:
        name = tensor.name.removesuffix(".steps")
        rounded = numpy_helper.to_array(tensor).astype(np.float32)
        assert np.abs(rounded).max() == {"int8": 127, "fp8": 448}[kind], name
    dequantised = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    halves = [node for node in model.graph.node if node.op_type in ("MatMul", "Conv")]
    assert sum(dequantised.isdisjoint(node.input) for node in halves) == 2 + 2 + 2 + 2, "scores, values, ends, prompt"


@pytest.mark.parametrize("kind, gpu", [("fp8", "sm89"), ("int8", "sm120")])
def test_in_a_plan_attention_is_one_kernel(tmp_path, kind, gpu):
    reason = not_installed(TENSORRT_RTX)
    if reason is not None:
        pytest.skip(reason)
    torch.manual_seed(0)
    onnx.save(made(Block(320, 5).eval(), kind, 32), tmp_path / "block.onnx")
    plan = plan_for(TENSORRT_RTX, tmp_path / "block.onnx", None, gpu, ArtifactCache(tmp_path / "plans")).read_bytes()
    assert b"_gemm_mha_v2" in plan


def test_a_bundle_is_written_with_it_and_says_how_far_it_is(tmp_path):
    source = write_random_checkpoint(tmp_path / "sd-turbo", "sd-turbo")
    said = []
    random = torch.Generator().manual_seed(0)
    frames = [nn.functional.interpolate(torch.rand(1, 3, 4, 4, generator=random), (64, 64)) for _ in range(5)]
    request = Request(size=(64, 64), steps=2, quantize="fp8", frames=frames)
    folder = export_checkpoint(tmp_path / "bundle", open_checkpoint(str(source)), request, said.append).folder
    assert any(line.startswith("unet: fp8, on 2 frames not calibrated on pictures are ") for line in said)
    model = onnx.load(load_bundle(str(folder)).network("unet"))
    found = products(model.graph)
    assert not found and any(node.op_type == "QuantizeLinear" for node in model.graph.node), "none is left in half"


def test_below_the_least_psnr_it_is_refused_with_the_figure():
    check_fidelity("fp8", LEAST_DB)
    for least in (LEAST_DB - 1, float("nan")):
        with pytest.raises(ExportError, match=rf"--quantize fp8: pictures are {least:.1f} dB from .* 30 are needed"):
            check_fidelity("fp8", least)


def test_every_row_meets_every_level_and_x0_is_found_again():
    levels = {"schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "train_timesteps": 1000}
    table = alphas_cumprod_of({**levels, "zero_terminal_snr": False})
    given = {"x": torch.zeros(2, 4, 8, 8), "timestep": torch.zeros(2), "context": torch.ones(2, 77, 32)}
    latents = [torch.full((1, 4, 8, 8), 0.1 * n) for n in range(4)]
    feeds = list(typical(given, latents, table, 999.0))
    for row in range(2):
        assert len({float(feed["timestep"][row]) for feed in feeds}) == 4
    share = table[feeds[1]["timestep"].round().long()].view(-1, 1, 1, 1)
    noise = (feeds[1]["x"] - share.sqrt() * latents[1]) / (1 - share).sqrt()
    assert 0.8 < float(noise.std()) < 1.2
    outputs = {"epsilon": noise, "v": share.sqrt() * noise - (1 - share).sqrt() * latents[1], "sample": latents[1]}
    for prediction, output in outputs.items():
        assert torch.allclose(clean(prediction, output, feeds[1], table), latents[1].expand(2, -1, -1, -1), atol=1e-4)


def test_what_it_cannot_be_with_is_one_line():
    assert parse_kind(None, "fp32", ("onnx", "torch")) is None and parse_kind("int8", "fp16", ("onnx",)) == "int8"
    with pytest.raises(ExportError, match=r"--quantize int8 --to torch: a \.pt2 has no 8-bit products"):
        parse_kind("int8", "fp16", ("onnx", "torch"))
