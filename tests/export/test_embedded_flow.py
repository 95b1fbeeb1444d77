"""The flow network: both ways alike, any size, the file computes what torch does; its training ends in a bundle."""

import cv2
import numpy as np
import onnxruntime as ort
import pytest
import torch
from support.fields import pan
from torch.nn.functional import grid_sample

from warpfuse.engine import open_engine
from warpfuse.engine.bundle import load_flow_bundle
from warpfuse.export.embedded.__main__ import main
from warpfuse.export.embedded.bundle import write_flow
from warpfuse.export.embedded.flow_network import TinyFlowNetwork, pull
from warpfuse.export.embedded.train_flow import losses


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    network = TinyFlowNetwork().eval()
    with torch.no_grad():  # at the start it hardly answers, and what is 0 is alike in every way
        for estimator in (network.at_sixteenth, network.at_eighth, network.at_quarter):
            estimator.leave.weight.mul_(5)
    return network


def test_the_network_is_small(network):
    assert sum(parameter.numel() for parameter in network.parameters()) <= 1_500_000


def test_the_way_back_is_the_way_there_with_the_pictures_exchanged(network):
    a, b = pan(2, 96, 128)
    with torch.no_grad():
        flow, flow_back = network(a, b)
        exchanged = network(b, a)
    assert flow.shape == (1, 2, 96, 128)
    assert torch.allclose(flow, exchanged[1], atol=1e-4) and torch.allclose(flow_back, exchanged[0], atol=1e-4)
    assert not torch.allclose(flow, flow_back, atol=1e-2)  # the control


def test_pulling_reads_where_the_flow_says_and_the_border_beyond():
    x = torch.rand(1, 5, 8, 12, generator=torch.Generator().manual_seed(0))
    flow = torch.zeros(1, 2, 8, 12)
    flow[:, 0] = 3
    assert torch.allclose(pull(x, flow)[..., :9], x[..., 3:], atol=1e-5)
    assert torch.allclose(pull(x, flow)[..., 9:], x[..., 11:].expand(-1, -1, -1, 3), atol=1e-5)
    flow = torch.rand(1, 2, 8, 12, generator=torch.Generator().manual_seed(1)) * 8 - 4
    y, x_ = torch.meshgrid(torch.arange(8.0), torch.arange(12.0), indexing="ij")
    at = torch.stack((x_, y), 2) + flow[0].permute(1, 2, 0)
    grid = at / torch.tensor([11.0, 7.0]) * 2 - 1
    assert torch.allclose(
        pull(x, flow), grid_sample(x, grid[None], padding_mode="border", align_corners=True), atol=1e-4
    )


def test_the_file_takes_any_size_and_gives_what_the_network_does(network, tmp_path):
    bundle = write_flow(tmp_path / "flow", network)
    session = ort.InferenceSession(bundle.network())
    for height, width in ((64, 96), (160, 112)):
        a, b = pan(2, height, width)
        flow, flow_back = session.run(["flow", "flow_back"], {"cur": a.numpy(), "prev": b.numpy()})
        with torch.no_grad():
            there, back = network(a, b)  # its weights were rounded to what the file can hold
        assert np.abs(flow - there.numpy()).max() < 1e-3 and np.abs(flow_back - back.numpy()).max() < 1e-3
        assert np.abs(flow - back.numpy()).max() > 1e-2  # the control: the other direction
    engine = open_engine(bundle.network(), shapes=dict.fromkeys(("cur", "prev"), (1, 3, 160, 112)))
    assert engine.inputs[0].shape == (1, 3, 160, 112)
    engine.close()


def test_the_error_is_the_mean_distance_and_every_size_is_taught(network):
    a, b = pan(2, 64, 96, (3, -2))
    truth = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 64, 96)
    with torch.no_grad():
        found = network(a, b)[0]
    network.zero_grad()
    loss, error = losses(network, a, b, truth)
    assert float(error) == pytest.approx(float((found - truth).square().sum(1).sqrt().mean()), rel=1e-3)
    assert loss > error
    assert losses(network, a, b, truth, fine=True)[0] > loss
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


def test_two_steps_of_the_flow_alone_give_a_bundle(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    cv2.imwrite(str(photos / "0.png"), cv2.resize(picture, (500, 400), interpolation=cv2.INTER_CUBIC))
    given = ["--photos", str(photos), "--out", str(tmp_path / "b"), "--parts", "flow", "--steps-flow", "2"]
    assert main([*given, "--batch", "4"]) == 0
    assert load_flow_bundle(str(tmp_path / "b-flow")).about.sizes.multiple == 16
    assert not (tmp_path / "b").exists()
