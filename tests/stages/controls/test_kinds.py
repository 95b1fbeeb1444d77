"""Control maps: each is what its reference draws, of every frame, and nothing of a frame that is held."""

import pkgutil
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import validate
from warpfuse.stages import controls, stage_module
from warpfuse.stages.controls.settings import KINDS, stage_of
from warpfuse.stages.errors import ControlError
from warpfuse.stages.frame import Picture, Stamp

SIZE = (96, 64)


@dataclass
class Opening:
    """What a map is opened from."""

    config: Any
    stage: str
    size: tuple[int, int] = SIZE
    device: str = "cpu"
    others: dict[str, Any] = field(default_factory=dict)


def opened(**keys):
    config = validate({"controls": {"it": keys}})
    return stage_module(keys["kind"]).open(Opening(config, stage_of("it"))), config


def picture(seed=0):
    """uint8 [h, w, 3]: shapes with edges of every strength."""
    random = np.random.default_rng(seed)
    drawn = np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)
    for _ in range(12):
        corner = random.integers(0, (SIZE[0], SIZE[1]))
        colour = tuple(int(level) for level in random.integers(0, 256, 3))
        cv2.rectangle(drawn, corner.tolist(), (corner + random.integers(4, 40, 2)).tolist(), colour, -1)
    return cv2.GaussianBlur(drawn, (3, 3), 0.8)


def frame(rgb):
    return Picture(Stamp(3, 0), torch.from_numpy(rgb).permute(2, 0, 1)[None] / 255)


def test_every_kind_has_settings_and_a_module_and_no_module_is_without():
    modules = {one.name for one in pkgutil.iter_modules(controls.__path__)} - {"settings", "host_map"}
    assert modules == set(KINDS)
    assert all(hasattr(stage_module(kind), "open") for kind in KINDS)


@pytest.mark.parametrize("kind", sorted(kind for kind in KINDS if not KINDS[kind].takes_past))
def test_a_map_is_of_the_frames_size_from_0_to_1_and_a_held_frame_has_none(kind):
    stage, _ = opened(kind=kind)
    made = stage(frame=frame(picture()))
    assert made.stamp == Stamp(3, 0)
    assert made.rgb.shape == (1, 3, SIZE[1], SIZE[0]) and made.rgb.dtype == torch.float32
    assert made.rgb.min() >= 0 and made.rgb.max() <= 1
    assert not stage.held(frame=frame(picture())).tensors
    stage.close()


def test_canny_is_opencvs_and_takes_new_thresholds():
    stage, config = opened(kind="canny")
    rgb = picture()
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    found = [stage(frame(rgb)).rgb]
    changed = config.controls["it"].model_copy(update={"low": 20.0, "high": 40.0})
    stage.update(changed)
    found.append(stage(frame(rgb)).rgb)
    for one, limits in zip(found, ((100, 200), (20, 40)), strict=True):
        wanted = cv2.Canny(gray, *limits)
        assert 0 < wanted.mean() < 128, "there are edges, and places without"
        for channel in range(3):
            assert np.array_equal(one[0, channel].numpy() * 255, wanted)
    assert (found[0] != found[1]).any(), "the control: other thresholds are other edges"


def test_a_picture_is_shown_upright_scaled_to_cover_and_cropped(tmp_path):
    turned = Image.fromarray(picture(1)).resize((200, 120)).transpose(Image.Transpose.ROTATE_90)
    exif = turned.getexif()
    exif[0x0112] = 6  # to be shown a quarter turn clockwise
    turned.save(tmp_path / "map.png", exif=exif)
    stage, _ = opened(kind="image", picture=str(tmp_path / "map.png"))
    found = stage(frame(picture())).rgb
    upright = turned.transpose(Image.Transpose.ROTATE_270)
    wanted = np.asarray(ImageOps.fit(upright, SIZE, Image.Resampling.LANCZOS))
    assert np.array_equal((found[0].permute(1, 2, 0) * 255).round().numpy(), wanted)
    assert found.data_ptr() == stage(frame(picture(2))).rgb.data_ptr(), "with every frame"


def test_without_a_picture_the_frame_is_the_map():
    stage, _ = opened(kind="image")
    given = frame(picture())
    assert torch.equal(stage(given).rgb, given.rgb)


@pytest.mark.parametrize("data, says", [(None, "No such file"), (b"\x89PNG no", "no picture that can be read")])
def test_a_file_that_is_no_picture_is_one_line(tmp_path, data, says):
    path = tmp_path / "map.png"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ControlError, match=rf"controls\.it\.picture: .*map\.png: .*{says}") as caught:
        opened(kind="image", picture=str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "controls, says",
    [
        ({"edges": {"scale": 1}}, "controls: the map of 'edges' is of no kind; expected kind: one of .*canny"),
        ({"edges": {"kind": "cany"}}, "edges: kind 'cany'; expected kind: one of .*canny"),
        ({"canny": 2.5}, r"controls\.canny\.scale: .*less than or equal to 2, got 2.5"),
        ({"canny": {"scale": -1}}, r"controls\.canny\.scale: .*greater than or equal to 0"),
        ({"canny": {"lo": 3}}, r"unknown key 'controls\.canny\.lo'; did you mean 'controls\.canny\.low'"),
        ({"canny": {"low": 300}}, r"controls\.canny: low is 300 and high 200; expected low at most high"),
        ({"canny": {"window": [500, 100]}}, r"controls\.canny\.window: expected two timesteps, the lower first"),
        ({"a b": {"kind": "canny"}}, "controls"),
        ({"canny": None}, "controls"),
        ([1], "controls"),
    ],
)
def test_settings_that_cannot_be_used_are_one_line(controls, says):
    with pytest.raises(ConfigError, match=says.replace("controls: the map", "the map")) as caught:
        validate({"controls": controls})
    assert "\n" not in str(caught.value)


def test_a_number_is_a_scale_and_a_control_called_as_a_kind_is_of_it():
    short = validate({"controls": {"canny": 0.7}}).controls["canny"]
    assert short == validate({"controls": {"canny": {"kind": "canny", "scale": 0.7}}}).controls["canny"]
    config = validate({"controls": {"canny": 0.7, "still": {"kind": "image", "picture": "a.png"}}})
    for dumped in (config.model_dump(mode="json"), config.model_dump(mode="json", exclude_defaults=True)):
        assert validate(dumped) == config


def test_outside_its_window_a_scale_is_0():
    control = validate({"controls": {"canny": {"scale": 0.5, "window": [200, 600]}}}).controls["canny"]
    assert [control.scale_at(t) for t in (199.9, 200, 400, 600, 601)] == [0, 0.5, 0.5, 0.5, 0]
