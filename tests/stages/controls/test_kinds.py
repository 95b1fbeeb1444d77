"""Control maps: each is what its reference draws, of every frame, and nothing of a frame that is held."""

import math
import pkgutil
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from warpfuse.engine.contract import TensorSpec
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import validate
from warpfuse.stages import controls, stage_module
from warpfuse.stages.controls.settings import KINDS, stage_of
from warpfuse.stages.errors import ControlError
from warpfuse.stages.frame import Frame, Picture, Stamp
from warpfuse.stages.geometry.framing import Framing

SIZE = (96, 64)


@dataclass
class Opening:
    """What a map is opened from."""

    config: Any
    stage: str
    size: tuple[int, int] = SIZE
    framing: Framing = field(default_factory=lambda: Framing(SIZE, SIZE, SIZE))
    device: str = "cpu"
    others: dict[str, Any] = field(default_factory=dict)

    def map_network(self, name):
        """The mean of the channels."""
        return Mean(self.size)


class Mean:
    """An engine of a map."""

    def __init__(self, size):
        self.inputs = (TensorSpec("rgb", "float32", (1, 3, *size[::-1])),)
        self.outputs = (TensorSpec("map", "float32", (1, 1, *size[::-1])),)
        self.backend, self.device = "none", "cpu"

    def __call__(self, inputs):
        return {"map": inputs["rgb"].mean(1, keepdim=True)}

    def close(self):
        pass


NEEDED = {"network": {"of": "mean"}}
"""Keys that a kind cannot be without."""


def opened(**keys):
    keys = {**NEEDED.get(keys["kind"], {}), **keys}
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
    modules = {one.name for one in pkgutil.iter_modules(controls.__path__)} - {"settings", "host_map", "map_network"}
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


def blurred(plane, sigma):
    """By the formula, the edge reflected about its pixels: float64 [h, w]."""
    reach = math.ceil(4 * sigma)
    taps = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    padded = np.pad(plane, reach, "reflect")
    across = np.apply_along_axis(np.convolve, 1, padded, taps / taps.sum(), "valid")
    return np.apply_along_axis(np.convolve, 0, across, taps / taps.sum(), "valid")


def luma(rgb):
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) / 255


def drawn(rgb, **keys):
    """The map of a picture, uint8 [h, w] or [h, w, 3]."""
    found = opened(**keys)[0](frame(rgb)).rgb[0]
    found = np.rint(found.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    return found[..., 0] if np.ptp(found, axis=2).max() == 0 else found


def soft_edges(rgb, low, high, gamma):
    """By the formula, pixel by pixel."""
    c, across = np.zeros(luma(rgb).shape), np.zeros(luma(rgb).shape, bool)
    for s in (1, 2, 4):
        padded = np.pad(blurred(luma(rgb), s), 1, "reflect")
        dx, dy = (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2, (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2
        size = math.sqrt(2 * math.pi) * s * np.hypot(dx, dy)
        across = np.where(size > c, abs(dx) >= abs(dy), across)
        c = np.maximum(c, size)
    ridges, rim = np.zeros_like(c), np.pad(c, 1)
    for y, x in np.ndindex(c.shape):
        before, behind = (rim[y + 1, x], rim[y + 1, x + 2]) if across[y, x] else (rim[y, x + 1], rim[y + 2, x + 1])
        if c[y, x] >= before and c[y, x] > behind:
            ridges[y, x] = c[y, x]
    share = (blurred(ridges, 1) * math.sqrt(2 * math.pi) - low) / (high - low)
    return np.clip(share, 0, 1) ** gamma * 255


def test_soft_edges_are_the_formulas_and_take_new_thresholds():
    for limits in ((0.06, 0.6, 0.7), (0.1, 0.4, 1.0)):
        found = drawn(picture(), kind="softedge", **dict(zip(("low", "high", "gamma"), limits, strict=True)))
        wanted = soft_edges(picture(), *limits)
        off = abs(found - wanted)
        assert np.median(off[wanted > 20]) <= 2 and (off > 12).mean() < 0.01, "but where two neighbours are level"
        assert 0.005 < (wanted > 10).mean() < 0.4
    assert abs(drawn(picture(), kind="softedge", low=0.3) - soft_edges(picture(), 0.06, 0.6, 0.7)).max() > 40, "control"


@pytest.mark.parametrize("contrast", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("upright", [True, False])
def test_a_step_is_a_ridge_as_high_as_its_contrast(contrast, upright):
    step = np.zeros((64, 64, 3), np.uint8)
    step[:, 32:] = round(255 * contrast)
    found = drawn(step if upright else step.transpose(1, 0, 2), kind="softedge", low=0, high=1, gamma=1)
    profile = (found if upright else found.T)[32] / 255
    assert abs(profile.max() - contrast) < 0.03 * contrast + 0.004 and profile.argmax() in (31, 32)
    x = np.arange(64) - profile.argmax()
    assert np.abs(profile - profile.max() * np.exp(-(x**2) / 2)).max() < 0.02


def test_a_round_thing_has_a_closed_line_round_it_and_nothing_else():
    disc = cv2.circle(np.full((128, 128, 3), 40, np.uint8), (64, 64), 40, (220, 220, 220), -1, cv2.LINE_AA)
    found = drawn(disc, kind="softedge")
    y, x = np.mgrid[0:128, 0:128] - 64
    radius = np.hypot(x, y)
    angles = np.arange(0, 2 * np.pi, 0.02)
    for angle in angles:
        near = (radius > 36) & (radius < 44) & (np.cos(np.arctan2(y, x) - angle) > 0.999)
        assert found[near].max() > 200
    assert found[(radius < 34) | (radius > 46)].max() == 0


def test_lines_are_the_formulas_and_dark_on_light_alone():
    rgb = picture(3)
    for sigma, threshold, steepness in ((1.0, 0.0, 30.0), (2.0, 0.01, 20.0)):
        found = drawn(rgb, kind="lineart", sigma=sigma, threshold=threshold, steepness=steepness)
        depth = 0.98 * blurred(luma(rgb), 1.6 * sigma) - blurred(luma(rgb), sigma) - threshold
        wanted = 255 * np.tanh(steepness * np.maximum(depth, 0))
        assert np.abs(found - wanted).max() < 2 and (wanted > 30).any()
    stroke = np.full((64, 96, 3), 230, np.uint8)
    stroke[30:33] = 20
    dark, light = drawn(stroke, kind="lineart"), drawn(255 - stroke, kind="lineart")
    assert dark[31].min() > 250 and dark[:20].max() == 0 and light[31].max() == 0


def test_a_tile_is_the_mean_of_cells_brought_up_smoothly():
    rgb = frame(picture()).rgb
    small = torch.nn.functional.interpolate(rgb, scale_factor=1 / 4, mode="area")
    wanted = torch.nn.functional.interpolate(small, SIZE[::-1], mode="bilinear", align_corners=False)
    assert (opened(kind="tile", smaller=4)[0](frame(picture())).rgb - wanted).abs().max() < 2.1 / 255
    assert torch.allclose(opened(kind="tile", smaller=1)[0](frame(picture())).rgb, rgb, atol=1e-6)


def test_colours_are_the_means_of_cells():
    found, rgb = drawn(picture(), kind="colour", cell_px=32), picture()
    cells = rgb.reshape(2, 32, 3, 32, 3).mean((1, 3))
    assert np.abs(found - cells.repeat(32, 0).repeat(32, 1)).max() <= 0.51


def test_the_past_is_the_map_where_it_is_trusted_and_the_frame_elsewhere():
    stage, _ = opened(kind="past")
    seen, last = frame(picture()), frame(picture(7)).rgb
    trust = torch.zeros(1, 1, *SIZE[::-1])
    trust[..., :32] = 1
    found = stage(frame=seen, past=Picture(Stamp(3, 0), last, trust=trust)).rgb
    assert torch.equal(found[..., :32], last[..., :32]) and torch.equal(found[..., 32:], seen.rgb[..., 32:])
    assert torch.equal(stage(frame=seen, past=Frame(Stamp(3, 0))).rgb, seen.rgb), "before there is one"
    assert not stage.held(frame=seen, past=Frame(Stamp(3, 0))).tensors


def test_the_map_of_a_network_has_three_channels_and_is_turned_round():
    stage, config = opened(kind="network")
    wanted = frame(picture()).rgb.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    assert torch.equal(stage(frame(picture())).rgb, wanted)
    stage.update(config.controls["it"].model_copy(update={"invert": True}))
    assert torch.equal(stage(frame(picture())).rgb, 1 - wanted)


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
        ({"softedge": {"low": 0.7}}, r"controls\.softedge: low is 0\.7 and high 0\.6; expected low below high"),
        ({"network": 1}, r"controls\.network\.of: expected a bundle of kind map"),
        ({"tile": {"smaller": 0}}, r"controls\.tile\.smaller: .*greater than or equal to 1"),
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
