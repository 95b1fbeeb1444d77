"""RAFT-small as published: its size, its figures, its look-up; and the file computes what the network does."""

import copy
import math

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from support.fields import read_flo, read_picture
from torch.nn.functional import avg_pool2d, grid_sample

from warpfuse.engine.bundle import load_flow_bundle
from warpfuse.export.onnx_writing import ExportError
from warpfuse.export.raft_bundle import export_raft_small
from warpfuse.export.raft_correlation import look_up, pyramids_both_ways
from warpfuse.export.raft_small import RaftSmall, load_raft_small


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    return RaftSmall(iterations=2).eval()


def pictures(h, w, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 3, h, w, generator=generator).chunk(2)


def test_it_has_the_published_number_of_parameters(network):
    assert sum(parameter.numel() for parameter in network.parameters()) == 990_162


def sampled(features, features_other, position):
    """The paper's look-up, sample by sample: offsets in x are the slower index."""
    b, c, h, w = features.shape
    level = torch.einsum("bchw,bcyx->bhwyx", features, features_other).reshape(b * h * w, 1, h, w) / math.sqrt(c)
    offsets = torch.arange(-3.0, 4.0)
    window = torch.stack(torch.meshgrid(offsets, offsets, indexing="ij"), dim=-1)
    out = []
    for i in range(4):
        size = torch.tensor([level.shape[3], level.shape[2]])
        at = position.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2) / 2**i + window
        out.append(grid_sample(level, (2 * at + 1) / size - 1, align_corners=False).reshape(b, h, w, 49))
        level = avg_pool2d(level, 2) if i < 3 else level
    return torch.cat(out, dim=-1).permute(0, 3, 1, 2)


def test_the_look_up_is_bilinear_sampling_both_ways():
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 16, 9, 12, generator=generator).chunk(2)
    position = torch.rand(2, 2, 9, 12, generator=generator) * 24 - 6  # a good part of it outside
    there, back = look_up(pyramids_both_ways(a, b), position).chunk(2)
    assert torch.allclose(there, sampled(a, b, position[:1]), atol=1e-5)
    assert torch.allclose(back, sampled(b, a, position[1:]), atol=1e-5)
    assert not torch.allclose(there, sampled(a, b, position[:1].flip(1)), atol=0.1)  # the control: x and y exchanged


def test_the_way_back_is_the_way_there_with_the_pictures_exchanged(network):
    a, b = pictures(72, 96)
    with torch.no_grad():
        flow, flow_back = network(a, b)
        exchanged = network(b, a)
    assert torch.allclose(flow, exchanged[1], atol=1e-4) and torch.allclose(flow_back, exchanged[0], atol=1e-4)
    assert not torch.allclose(flow, flow_back, atol=1e-2)  # the control


def test_pictures_of_any_size_are_padded_and_cut(network):
    a, b = pictures(70, 93)
    with torch.no_grad():
        flow, flow_back = network(a, b)
        padded = [torch.nn.functional.pad(rgb, (0, 3, 0, 2), "replicate") for rgb in (a, b)]
        of_padded = network(*padded)[0][..., :70, :93]
    assert flow.shape == flow_back.shape == (1, 2, 70, 93) and flow.dtype == torch.float32
    assert torch.allclose(flow, of_padded, atol=1e-4)


def test_in_half_precision_positions_and_flow_stay_single(network):
    a, b = pictures(72, 96)
    with torch.no_grad():
        wanted = network(a, b)[0]
        flow = copy.deepcopy(network).bfloat16()(a, b)[0]
    assert flow.dtype == torch.float32
    assert 0 < (flow - wanted).abs().max() < 0.1 * wanted.abs().max()
    assert not torch.equal(flow, flow.bfloat16().float())  # finer than the convolutions' type


def test_the_file_gives_what_the_network_does(network, tmp_path):
    bundle = export_raft_small(tmp_path / "flow", network, (93, 70))
    assert load_flow_bundle(str(bundle.folder)).about.size == (93, 70)
    model = onnx.load_model(bundle.network())
    assert {node.op_type for node in model.graph.node}.isdisjoint({"GridSample", "GatherElements", "Loop", "If"})
    a, b = pictures(70, 93, seed=5)
    flow, flow_back = ort.InferenceSession(bundle.network()).run(
        ["flow", "flow_back"], {"cur": a.numpy(), "prev": b.numpy()}
    )
    with torch.no_grad():
        wanted = network(a, b)
    assert np.abs(flow - wanted[0].numpy()).max() < 1e-3
    assert np.abs(flow_back - wanted[1].numpy()).max() < 1e-3
    assert np.abs(flow - wanted[1].numpy()).max() > 1e-2  # the control: the other direction


def test_what_it_cannot_take_is_refused(network, tmp_path):
    with pytest.raises(ExportError, match="64 pixels or more"):
        export_raft_small(tmp_path / "flow", network, (96, 40))
    with pytest.raises(ExportError, match="iterations 0"):
        export_raft_small(tmp_path / "flow", RaftSmall(iterations=0), (96, 72))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no weights", None])
def test_weights_that_are_none_are_refused(tmp_path, content):
    path = tmp_path / "raft-small.pth"
    if content is None:
        torch.save({"module.fnet.conv1.weight": torch.zeros(1)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(ExportError, match=r"raft-small\.pth are not those of RaftSmall") as caught:
        load_raft_small(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "first, second, truth, published_px",
    [
        ("rubberwhale/rubberwhale1.png", "rubberwhale/rubberwhale2.png", "rubberwhale/rubberwhale_gt.flo", 0.31),
        ("chairs/0000000-img0.png", "chairs/0000000-img1.png", "chairs/0000000-gt.flo", 2.59),
        ("chairs/0000001-img0.png", "chairs/0000001-img1.png", "chairs/0000001-gt.flo", 0.97),
        ("chairs/0000004-img0.png", "chairs/0000004-img1.png", "chairs/0000004-gt.flo", 1.79),
    ],
)
def test_the_published_weights_give_the_published_error(data, first, second, truth, published_px):
    """The truth goes from the first picture to the second: the second is the previous one here."""
    network = load_raft_small(data / "weights" / "raft-small.pth", iterations=12)
    with torch.no_grad():
        flow, flow_back = network(*(read_picture(data / "flow" / name) for name in (first, second)))
    gt = read_flo(data / "flow" / truth)
    known = gt.abs().amax(1) < 1e8
    error, control = (float((f - gt).square().sum(1).sqrt()[known].mean()) for f in (flow, flow_back))
    assert abs(error - published_px) < 0.006  # both are rounded to 0.01
    assert control > 2 * published_px
