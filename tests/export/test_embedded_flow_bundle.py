"""The flow network in the package: small, whole, near the truth both ways, no worse than DIS medium in the mean."""

import cv2
import numpy as np
import onnxruntime as ort
import pytest
import torch
from support.fields import as_bytes, constant_flow, end_point_error, pan, read_flo, read_picture
from torch.nn.functional import interpolate

from warpfuse.engine.bundle import load_flow_bundle, shipped_bundles
from warpfuse.graph.plan.config import validate
from warpfuse.graph.run import run
from warpfuse.graph.runtime.engines import flow_shapes
from warpfuse.stages.cpu import resize_flow
from warpfuse.stages.motion.dis_flow import dis_flow, open_dis

FOLDER = shipped_bundles() / "embedded-flow"
CHAIRS = [(f"chairs/000000{i}-img0.png", f"chairs/000000{i}-img1.png", f"chairs/000000{i}-gt.flo") for i in (0, 1, 4)]
WHALE = ("rubberwhale/rubberwhale1.png", "rubberwhale/rubberwhale2.png", "rubberwhale/rubberwhale_gt.flo")


@pytest.fixture(scope="module")
def both_ways():
    bundle = load_flow_bundle(str(FOLDER))
    session = ort.InferenceSession(bundle.network())

    def flows(cur, prev):
        h, w = cur.shape[-2:]
        _, _, height, width = flow_shapes(bundle.about, (w, h), None)["cur"]
        fed = [interpolate(rgb, (height, width), mode="bilinear").numpy() for rgb in (cur, prev)]
        found = session.run(["flow", "flow_back"], dict(zip(("cur", "prev"), fed, strict=True)))
        return [resize_flow(torch.from_numpy(flow), (h, w)) for flow in found]

    return flows


def test_the_bundle_is_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 3_100_000  # 1.5 million halves


@pytest.mark.parametrize("step", [(0, 0), (3, -2), (-11, 6)])
def test_a_pan_is_found_both_ways(both_ways, step):
    before, now = pan(2, 192, 256, step)
    there, back = both_ways(now, before)
    x, y = step
    assert end_point_error(there, constant_flow(192, 256, x, y), 24) < 0.35
    assert end_point_error(back, constant_flow(192, 256, -x, -y), 24) < 0.35
    assert end_point_error(there, constant_flow(192, 256, x + 1, y), 24) > 0.6  # the control: a pixel beside it


def pair(data, names):
    """Both pictures [1, 3, h, w], and where the first is in the second."""
    first, second, truth = (data / "flow" / name for name in names)
    return [read_picture(first), read_picture(second)], read_flo(truth)


def error(found, truth):
    known = truth.abs().amax(1) < 1e9
    return float((found - truth).square().sum(1).sqrt()[known].mean())


def network_error(both_ways, pictures, truth):
    return error(both_ways(*pictures)[0], truth)


def dis_error(pictures, truth):
    grays = (cv2.cvtColor(as_bytes(rgb), cv2.COLOR_RGB2GRAY) for rgb in pictures)
    return error(dis_flow(open_dis("medium"), *grays), truth)


def test_on_chairs_it_is_nearer_than_dis_medium(data, both_ways):
    pairs = [pair(data, names) for names in CHAIRS]
    mine, of_dis = ([judge(*p) for p in pairs] for judge in (lambda *p: network_error(both_ways, *p), dis_error))
    assert np.mean(mine) <= np.mean(of_dis), (mine, of_dis)
    assert np.mean(of_dis) < 6, "control: DIS finds something itself"


def test_on_a_real_pair_it_is_near(data, both_ways):
    pictures, truth = pair(data, WHALE)
    assert network_error(both_ways, pictures, truth) <= 0.6
    assert network_error(both_ways, pictures[::-1], truth) > 1.2  # the control: the other way


def test_a_run_takes_the_bundle_by_name(tmp_path):
    stats = run(
        validate({"source": "pattern:96x64@25,frames=4", "sinks": [str(tmp_path / "out.mp4")], "flow": "embedded"})
    )
    assert stats.frames.out == 4 and stats.stages["flow"].count == 4
