import pytest
import torch
from pydantic import ValidationError
from support.fields import constant_flow, end_point_error, frame_of, pan, read_flo, read_picture, texture

from warpfuse.stages.cpu import warp
from warpfuse.stages.motion.dis_flow import Flow
from warpfuse.stages.motion.settings import ConfidenceSettings, FlowSettings

CLIPS = {
    "tos_cuts.mp4": {52, 122, 158, 221, 309},
    "tos_person_camera.mp4": set(),
    "bigbuckbunny.mp4": set(),
    "intel_cars.mp4": set(),
    "flower.mp4": set(),
}


@pytest.fixture(autouse=True)
def one_thread():
    """Many small tensors: threads that wait for each other cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("preset", ["ultrafast", "fast", "balanced", "medium"])
def test_a_camera_that_pans_is_followed(preset):
    flow = Flow(FlowSettings(preset=preset))
    frames = [flow(frame_of(rgb, i)) for i, rgb in enumerate(pan(3, 96, 128, (3, -2)))]
    truth = constant_flow(96, 128, 3, -2)
    assert end_point_error(frames[2].flow, truth, margin=12) < 0.3
    assert end_point_error(-frames[2].flow, truth, margin=12) > 5  # the control: the other direction
    assert frames[2].trust[..., 12:-12, 12:-12].mean() > 0.95
    assert frames[2].flow.dtype == frames[2].trust.dtype == torch.float32
    assert frames[2].flow.is_contiguous() and frames[2].stamp.seq == 2


def test_warping_by_it_brings_the_past_onto_the_present():
    before, now = pan(2, 96, 128, (4, 3))
    stage = Flow(FlowSettings())
    stage(frame_of(before))
    out = stage(frame_of(now, 1))
    error = ((warp(before, out.flow) - now).abs() * out.trust).mean()
    assert error < 0.01 and error < 0.1 * (before - now).abs().mean()


def test_a_large_frame_is_compared_small_and_answered_large():
    before, now = pan(2, 192, 256, (8, -4))
    stage = Flow(FlowSettings(long_side=128))
    stage(frame_of(before))
    out = stage(frame_of(now, 1))
    assert out.flow.shape == (1, 2, 192, 256) and out.trust.shape == (1, 1, 192, 256)
    assert end_point_error(out.flow, constant_flow(192, 256, 8, -4), margin=24) < 0.6
    assert out.trust.min() >= 0 and out.trust.max() <= 1


def test_what_was_covered_is_not_trusted():
    """A square moves over a still ground: the ground it uncovers has no past."""
    ground, thing = texture(96, 128, 1), texture(40, 40, 2)
    frames = []
    for x in (40, 48):
        rgb = ground.clone()
        rgb[..., 28:68, x : x + 40] = thing
        frames.append(rgb)
    stage = Flow(FlowSettings())
    stage(frame_of(frames[0]))
    m = stage(frame_of(frames[1], 1)).trust[0, 0]
    assert m[30:66, 41:47].mean() < 0.4  # uncovered
    assert m[34:62, 58:80].mean() > 0.8  # the thing
    assert m[:16].mean() > 0.95  # the ground


@pytest.mark.parametrize("backward_flow, furthest", [("always", 0.04), ("doubtful", 0.05)])
def test_trust_judged_in_cells_is_about_that_of_every_pixel(backward_flow, furthest):
    ground, thing = texture(160, 192, 1), texture(64, 64, 2)
    frames = [ground.clone(), ground.clone()]
    for rgb, x in zip(frames, (60, 70), strict=True):
        rgb[..., 40:104, x : x + 64] = thing
    found = {}
    for cell in (1, 2, 3):
        stage = Flow(FlowSettings(trust_cell=cell, backward_flow=backward_flow))
        stage(frame_of(frames[0]))
        found[cell] = stage(frame_of(frames[1], 1))
    for cell in (2, 3):
        assert torch.equal(found[cell].flow, found[1].flow), "the flow itself knows every pixel"
        gap = (found[cell].trust - found[1].trust).abs()
        assert 0 < gap.mean() < furthest and found[cell].trust.shape == found[1].trust.shape
    distrusted = 1 - found[1].trust
    assert distrusted.mean() > furthest, "the control: more than the gap is there to be missed"


class Counted:
    """DIS, and how often it was asked."""

    def __init__(self, dis):
        self.dis, self.calls = dis, 0

    def calc(self, *pictures):
        self.calls += 1
        return self.dis.calc(*pictures)


@pytest.mark.parametrize("backward_flow, check, asked", [("doubtful", "squared", 1), ("always", "squared", 2)])
def test_the_backward_flow_is_asked_only_where_the_flow_leaves_doubt(backward_flow, check, asked):
    stage = Flow(FlowSettings(backward_flow=backward_flow, trust=ConfidenceSettings(check=check)))
    stage._dis = dis = Counted(stage._dis)
    a, b = pan(2, 96, 128)
    other = texture(96, 128, 7)
    calls = []
    for i, rgb in enumerate((a, b, other)):
        stage(frame_of(rgb, i))
        calls.append(dis.calls)
    assert calls == [0, asked, asked + 2], "nothing to compare with; a pan; another scene"


def test_where_there_is_doubt_trust_is_that_of_both_ways():
    ground, other = texture(96, 128, 1), texture(96, 128, 7)
    other[..., :40] = ground[..., :40]  # a third of the picture is what it was
    found = {}
    for backward_flow in ("doubtful", "always"):
        stage = Flow(FlowSettings(backward_flow=backward_flow))
        stage(frame_of(ground))
        found[backward_flow] = stage(frame_of(other, 1)).trust
    assert torch.equal(found["doubtful"], found["always"]) and found["always"].mean() > 0.1


@pytest.mark.parametrize("check", ["squared", "norm"])
def test_matches_tell_what_was_covered_where_colours_do_not(check):
    """Ground and thing are of one texture: no colour says what came into view."""
    ground, thing = texture(160, 192, 1) * 0.1 + 0.45, texture(64, 64, 2) * 0.1 + 0.45
    frames = [ground.clone(), ground.clone()]
    for rgb, x in zip(frames, (60, 70), strict=True):
        rgb[..., 48:112, x : x + 64] = thing
    found = {}
    for name, settings in {"matches": ConfidenceSettings(check=check), "off": ConfidenceSettings(check="off")}.items():
        stage = Flow(FlowSettings(trust=settings))
        stage(frame_of(frames[0]))
        found[name] = stage(frame_of(frames[1], 1)).trust[0, 0]
    uncovered, shown = (slice(52, 108), slice(61, 69)), (slice(56, 104), slice(84, 128))
    assert found["matches"][uncovered].mean() < 0.5 < 0.9 < found["off"][uncovered].mean()
    assert found["matches"][shown].mean() > 0.9 and found["matches"][:32].mean() > 0.95


def test_another_size_of_the_same_cells_is_another_size():
    """61 and 62 pixels are 31 cells both; what is remembered still cannot be compared."""
    stage = Flow(FlowSettings(preset="fast"))
    stage(frame_of(texture(61, 64)))
    assert stage(frame_of(texture(62, 64), 1)).trust.max() == 0


def test_without_a_past_nothing_is_trusted():
    a, b, c = pan(3, 48, 64)
    stage = Flow(FlowSettings())
    assert stage(frame_of(a)).trust.max() == 0
    assert stage(frame_of(b, 1)).trust.max() > 0
    assert stage(frame_of(c, 2, discontinuity=True)).trust.max() == 0
    assert stage(frame_of(c, 3)).trust.max() > 0
    assert stage(frame_of(texture(64, 64), 4)).trust.max() == 0  # another size
    stage.close()
    assert stage(frame_of(texture(64, 64), 5)).trust.max() == 0


def test_another_scene_is_a_cut_and_a_lamp_is_not():
    day = texture(72, 96, 1) * torch.tensor([0.9, 0.6, 0.3]).view(1, 3, 1, 1)
    other = texture(72, 96, 2) * torch.tensor([0.2, 0.4, 0.9]).view(1, 3, 1, 1)
    stage = Flow(FlowSettings())
    found = [bool(stage(frame_of(rgb, i)).trust.max() > 0) for i, rgb in enumerate((day, day * 0.9, other, other))]
    assert found == [False, True, False, True]


def test_new_settings_are_taken_from_the_next_frame_on():
    a, b, c = pan(3, 96, 128)
    stage = Flow(FlowSettings())
    stage(frame_of(a))
    stage.update(FlowSettings(preset="ultrafast"))
    assert stage(frame_of(b, 1)).trust.max() > 0  # the past still fits
    stage.update(FlowSettings(long_side=64))
    assert stage(frame_of(c, 2)).trust.max() == 0  # now it does not


def test_what_cannot_be_done_is_refused():
    with pytest.raises(ValidationError):
        FlowSettings(preset="best")
    with pytest.raises(ValueError, match="12 pixels"):
        Flow(FlowSettings())(frame_of(torch.zeros(1, 3, 8, 64)))


@pytest.mark.parametrize(
    "first, second, truth, worst_px",
    [
        ("rubberwhale/rubberwhale1.png", "rubberwhale/rubberwhale2.png", "rubberwhale/rubberwhale_gt.flo", 0.6),
        ("chairs/0000001-img0.png", "chairs/0000001-img1.png", "chairs/0000001-gt.flo", 2.3),
        ("chairs/0000004-img0.png", "chairs/0000004-img1.png", "chairs/0000004-gt.flo", 3.3),
    ],
)
def test_the_ground_truth_is_met(data, first, second, truth, worst_px):
    """The truth goes from the first picture to the second: the second is the previous one here."""
    cur, prev = (read_picture(data / "flow" / name) for name in (first, second))
    gt = read_flo(data / "flow" / truth)
    stage = Flow(FlowSettings())
    stage(frame_of(prev))
    out = stage(frame_of(cur, 1))
    known = gt.abs().amax(1) < 1e8
    gap = (out.flow - gt).square().sum(1).sqrt()
    assert float(gap[known].mean()) < worst_px
    m = out.trust[:, 0]
    assert float(gap[known & (m > 0.5)].mean()) < float(gap[known & (m < 0.5)].mean())  # trust knows where it is wrong


@pytest.mark.parametrize("clip", CLIPS)
def test_cuts_are_found_and_no_others(data, clip):
    av = pytest.importorskip("av")
    stage, found = Flow(FlowSettings(preset="fast", long_side=128)), set()
    with av.open(str(data / "clips" / clip)) as container:
        for i, picture in enumerate(container.decode(video=0)):
            rgb = picture.to_ndarray(format="rgb24", width=128, height=72)
            out = stage(frame_of(torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255, i))
            if i and out.trust.max() == 0:
                found.add(i)
    assert found == CLIPS[clip]
