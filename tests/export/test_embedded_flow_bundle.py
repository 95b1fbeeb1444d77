"""The flow network in the package: small, whole, near the truth both ways, no worse than DIS medium in the mean."""

import cv2
import numpy as np
import onnxruntime as ort
import pytest
import torch
from fields import constant_flow, end_point_error, pan
from torch.nn.functional import interpolate

from warpfuse.engine.bundle import load_flow_bundle, shipped_bundles
from warpfuse.graph.config import validate
from warpfuse.graph.engines import flow_shapes
from warpfuse.graph.run import run
from warpfuse.stages.warp import resize_flow

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


def test_it_is_small():
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
    first, second, truth = (data / "flow" / name for name in names)
    raw = truth.read_bytes()
    w, h = np.frombuffer(raw, np.int32, 2, 4)
    flow = np.frombuffer(raw, np.float32, offset=12).reshape(h, w, 2)
    pictures = [np.ascontiguousarray(cv2.imread(str(path))[..., ::-1]) for path in (first, second)]
    return pictures, flow


def error(found, truth):
    known = np.abs(truth).max(2) < 1e9
    return float(np.linalg.norm(found - truth, axis=2)[known].mean())


def network_error(both_ways, pictures, truth):
    cur, prev = (torch.from_numpy(p).permute(2, 0, 1)[None].float() / 255 for p in pictures)
    return error(both_ways(cur, prev)[0][0].permute(1, 2, 0).numpy(), truth)


def dis_error(pictures, truth):
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return error(dis.calc(*(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in pictures), None), truth)


def test_on_chairs_it_is_nearer_than_dis_medium(data, both_ways):
    pairs = [pair(data, names) for names in CHAIRS]
    mine, of_dis = ([judge(*p) for p in pairs] for judge in (lambda *p: network_error(both_ways, *p), dis_error))
    assert np.mean(mine) <= np.mean(of_dis), (mine, of_dis)
    assert np.mean(of_dis) < 6, "control: DIS finds something itself"


def test_on_a_real_pair_it_is_near(data, both_ways):
    pictures, truth = pair(data, WHALE)
    assert network_error(both_ways, pictures, truth) <= 0.6
    assert network_error(both_ways, pictures[::-1], truth) > 1.2  # the control: the other way


def test_a_run_takes_it_by_name(tmp_path):
    stats = run(
        validate({"source": "pattern:96x64@25,frames=4", "sinks": [str(tmp_path / "out.mp4")], "flow": "embedded"})
    )
    assert stats.frames.out == 4 and stats.stages["flow"].count == 4
