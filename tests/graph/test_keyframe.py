"""A keyframe in whole graphs: it is shown where it belongs, moves with what it was painted on, and a cut forgets it."""

import numpy as np
import pytest
import torch
from PIL import Image
from support.fields import as_bytes, pan, texture
from support.pipelines import far, styled

import warpfuse
from warpfuse.engine.errors import BadInput
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.live_settings import NeedsRestart
from warpfuse.graph.run import run
from warpfuse.stages.sources import open_source

H, W = 144, 192
SIZE = (W, H)
STEP = (2, -1)
WAYS = {
    "picture": {"fusion": 0.8},
    "output": {"fusion": 0.8, "stages": {"fuse": {"reference": "output"}}},
    "without fusion": {"fusion": 0},
    "stream": {"steps": 3, "stages": {"predict": {"stream": True}}},
}


def keys(bundle, way="picture", picture="", **anchor):
    more = WAYS[way]
    stages = {**more.get("stages", {}), "anchor": {"picture": picture, **anchor}}
    return {"bundle": bundle, "prompt": "negative", "size": SIZE, **more, "stages": stages}


def saved(path, rgb):
    Image.fromarray(rgb).save(path)
    return str(path)


@pytest.fixture
def still():
    return as_bytes(texture(H, W, 3))


@pytest.fixture
def painted():
    """Far from anything that a style makes of the frames."""
    return as_bytes(texture(H, W, 77).flip(3) ** 2)


@pytest.mark.parametrize("way", WAYS)
def test_of_a_clip_that_stands_still_the_keyframe_is_shown(exact_bundle, tmp_path, still, painted, way):
    told = keys(exact_bundle, way, saved(tmp_path / "key.png", painted), at=0)
    shown = styled([still] * 4, **told)
    assert far(shown[2:], [painted] * 2) <= 1
    told["stages"]["anchor"]["weight"] = 0
    assert far(styled([still] * 4, **told)[2:], [painted] * 2) > 50, "the control"


@pytest.mark.parametrize("prompt", ["ink", "watercolour"])
def test_a_real_style_gives_way_within_two_frames(tmp_path, painted, prompt):
    cars = open_source("pattern:192x144,frames=1").read().rgb
    told = keys("embedded", "picture", saved(tmp_path / "key.png", painted), at=0)
    shown = styled([cars] * 3, **{**told, "prompt": prompt})
    assert far(shown[1:], [painted] * 2) <= 1
    assert far(shown[:1], [painted]) > 1, "the control: a blend alone"


@pytest.mark.parametrize("way", ["picture", "output", "stream"])
def test_what_was_painted_moves_with_the_things_it_was_painted_on(exact_bundle, tmp_path, painted, way):
    frames, last = 8, 7
    pictures = [as_bytes(rgb) for rgb in pan(frames, H, W, STEP)]
    shown = styled(pictures, **keys(exact_bundle, way, saved(tmp_path / "key.png", painted), at=0))
    dx, dy = last * STEP[0], last * STEP[1]
    edge = 24
    moved = painted[edge + dy : H - edge + dy, edge + dx : W - edge + dx].astype(int)
    found = shown[last][edge : H - edge, edge : W - edge]
    assert np.abs(found - moved).mean() < 2
    stays = painted[edge : H - edge, edge : W - edge].astype(int)
    assert np.abs(found - stays).mean() > 10, "the control: it does not stay where it was"


@pytest.mark.parametrize("way", ["picture", "output", "stream"])
def test_a_cut_forgets_it(exact_bundle, tmp_path, painted, way):
    here, there = (
        as_bytes(texture(H, W, 3)),
        as_bytes(texture(H, W, 9) ** 2 * torch.tensor([1, 0.4, 0.1])[:, None, None]),
    )
    picture = saved(tmp_path / "key.png", painted)
    shown = styled([here] * 4 + [there] * 4, **keys(exact_bundle, way, picture, at=0))
    without = styled([there] * 4, **keys(exact_bundle, way))
    assert far(shown[3:4], [painted]) <= 1
    assert far(shown[4:], without) <= 1


@pytest.mark.parametrize("way", WAYS)
def test_without_weight_the_pictures_are_those_without_it(exact_bundle, tmp_path, painted, way):
    pictures = [as_bytes(rgb) for rgb in pan(5, H, W, STEP)]
    picture = saved(tmp_path / "key.png", painted)
    told = keys(exact_bundle, way)
    assert far(styled(pictures, **told), styled(pictures, **keys(exact_bundle, way, picture, at=0, weight=0))) == 0
    assert far(styled(pictures, **told), styled(pictures, **keys(exact_bundle, way, picture, at=0, weight=0.1))) > 1


def test_where_it_is_transparent_the_style_is_shown(exact_bundle, tmp_path, still, painted):
    cover = np.zeros((H, W, 1), np.uint8)
    cover[:, W // 2 :] = 255
    picture = saved(tmp_path / "key.png", np.dstack([painted, cover]))
    shown = styled([still] * 3, **keys(exact_bundle, "without fusion", picture, at=0))
    plain = styled([still] * 3, **keys(exact_bundle, "without fusion"))
    half = np.s_[:, : W // 2 - 8], np.s_[:, W // 2 + 8 :]
    assert far([shown[2][half[0]]], [plain[2][half[0]]]) <= 1
    assert far([shown[2][half[1]]], [painted[half[1]]]) <= 1


def test_it_is_given_replaced_and_taken_away_while_frames_flow(exact_bundle, tmp_path, still, painted):
    first, other = saved(tmp_path / "a.png", painted), saved(tmp_path / "b.png", 255 - painted)
    frame = saved(tmp_path / "frame.png", still)
    change = {
        2: {"stages": {"anchor": {"picture": first, "frame": frame}}},
        5: {"stages": {"anchor": {"picture": other}}},
        8: {"stages": {"anchor": {"picture": ""}}},
    }
    told = {name: value for name, value in keys(exact_bundle).items() if name != "stages"}
    shown = styled([still] * 14, change, **told)
    assert far(shown[3:5], [painted] * 2) <= 1 and far(shown[6:8], [255 - painted] * 2) <= 1
    assert far(shown[:2], [255 - still] * 2) <= 2, "the style before it"
    gone = [int(np.abs(one.astype(int) - (255 - painted)).max()) for one in shown[8:]]
    assert gone == sorted(gone) and gone[0] > 10, "it goes as fusion lets it"


def test_a_file_that_cannot_be_read_is_refused_and_the_run_goes_on(exact_bundle, tmp_path, still):
    (tmp_path / "notes.txt").write_text("no picture")
    with warpfuse.Pipeline(**keys(exact_bundle)) as pipeline:
        before = pipeline.push(still)
        for name, why in (("gone.png", "No such file"), ("notes.txt", "it holds no picture")):
            with pytest.raises(BadInput, match=f"stages.anchor.picture: .*{name}: {why}"):
                pipeline.update(stages={"anchor": {"picture": str(tmp_path / name)}})
        assert far([pipeline.push(still)], [before]) <= 1
    with pytest.raises(BadInput, match=r"stages.anchor.picture: .*gone\.png"):
        styled([still], **keys(exact_bundle, "picture", str(tmp_path / "gone.png")))


def test_what_does_not_go_together_is_said():
    with pytest.raises(ConfigError, match=r"with stages.fuse.reference latent no picture is fed back"):
        validate({"stages": {"anchor": {"picture": "key.png"}, "fuse": {"reference": "latent"}}})
    with pytest.raises(ConfigError, match="both say which frame it is"):
        validate({"stages": {"anchor": {"picture": "key.png", "at": 1, "frame": "frame.png"}}})


def test_a_run_that_began_without_says_that_it_needs_a_restart(exact_bundle, tmp_path, painted):
    with warpfuse.Pipeline(**keys(exact_bundle) | {"stages": {"fuse": {"reference": "latent"}}}) as pipeline:
        pipeline.push(painted)
        with pytest.raises((NeedsRestart, ConfigError), match="latent"):
            pipeline.update(stages={"anchor": {"picture": saved(tmp_path / "key.png", painted)}})


@pytest.mark.parametrize("workers", ["one", "stages"])
def test_every_placement_gives_the_same_bytes(exact_bundle, tmp_path, painted, workers):
    sink, plain = tmp_path / "out" / "%02d.png", tmp_path / "plain" / "%02d.png"
    source = f"pattern:{W}x{H},frames=5"
    picture = saved(tmp_path / "key.png", painted)
    common = {"bundle": exact_bundle, "prompt": "negative", "source": source, "workers": workers}
    stages = {"anchor": {"picture": picture, "at": 0.04}}
    run(validate({**common, "sinks": [str(sink)], "stages": stages}))
    run(validate({**common, "sinks": [str(plain)]}))
    shown, without = ([np.asarray(Image.open(str(out) % n)) for n in range(5)] for out in (sink, plain))
    assert far(shown[:1], without[:1]) == 0
    assert far(shown[2:3], without[2:3]) > 20
    again = tmp_path / "again" / "%02d.png"
    run(validate({**common, "workers": "one", "sinks": [str(again)], "stages": stages}))
    assert far(shown, [np.asarray(Image.open(str(again) % n)) for n in range(5)]) == 0


def test_it_is_refused_before_a_run_is_opened(tmp_path):
    from warpfuse.graph.plan.checks import check_early

    told = {"source": "pattern:64x64", "sinks": ["null:"], "stages": {"anchor": {"picture": str(tmp_path / "a.png")}}}
    with pytest.raises(BadInput, match=r"stages.anchor.picture: .*a\.png: No such file"):
        check_early(validate(told))
