"""The bundle in the package: small, whole, white, faithful, and its styles are told apart, in either precision."""

import itertools
import shutil

import cv2
import numpy as np
import onnxruntime as ort
import pytest
import torch

from warpfuse.engine.bundle import load_bundle, shipped_bundles
from warpfuse.engine.errors import BundleError
from warpfuse.engine.precision import cpu_flags, gains_by
from warpfuse.export.embedded.painters.styles import PAINTERS
from warpfuse.export.embedded.plates import PAINTS, painted
from warpfuse.stages.cpu import composed
from warpfuse.stages.diffusion.palette import palette_of, read_table
from warpfuse.stages.formulas.composite import shares_of
from warpfuse.stages.solvers.levels import level_at, levels, steps_for

FOLDER = shipped_bundles() / "embedded"
ABOUT = load_bundle(str(FOLDER)).about
_LEVEL = level_at(
    levels(ABOUT.levels.schedule, ABOUT.levels.beta_start, ABOUT.levels.beta_end, ABOUT.levels.train_timesteps),
    ABOUT.steps.top,
)
TOP = np.float32([[_LEVEL.alpha, _LEVEL.sigma]])  # where its one step starts
TABLES = {name: read_table(FOLDER / style.lut) for name, style in ABOUT.styles.items() if style.lut is not None}


def cloudy(height, width, seed, slope=1.0):
    """rgb [1,3,h,w] in [0,1], amplitude 1/f^slope, mostly grey: 1 is a photograph full of detail, 2 is smooth."""
    rng = np.random.default_rng(seed)
    f = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    f[0, 0] = 1
    noise = rng.standard_normal((4, height, width))
    noise = noise[:3] * 0.5 + noise[3:]
    planes = np.fft.ifft2(np.fft.fft2(noise) / f**slope).real
    return (0.5 + 0.2 * planes / planes.std()).clip(0, 1).astype(np.float32)[None]


@pytest.fixture(scope="module", params=["float", "int8"])
def bundle(request):
    return load_bundle(str(FOLDER)).in_precision(request.param)


@pytest.fixture(scope="module")
def networks(bundle):
    options = ort.SessionOptions()
    if gains_by(cpu_flags()) is None:
        options.add_session_config_entry("session.x64quantprecision", "1")
    return {
        kind: ort.InferenceSession(bundle.network(kind), options)
        for kind in ("encoder", "encoder_past", "unet", "decoder", "lines")
    }


def encode(networks, rgb):
    return networks["encoder"].run(None, {"rgb": rgb})[0]


def decode(networks, z):
    return networks["decoder"].run(None, {"latent": z})[0]


def stylise(networks, z, vector, seed=0):
    noise = np.random.default_rng(seed).standard_normal(z.shape).astype(np.float32)
    x = TOP[0, 0] * z + TOP[0, 1] * noise
    return networks["unet"].run(None, {"x": x, "source": z, "level": TOP, "style": np.float32([vector])})[0]


def picture(networks, rgb, name, seed=0):
    """What is shown of rgb [1,3,h,w] in a style: paint, inks and lines."""
    vector = ABOUT.styles[name].vector
    x0 = stylise(networks, encode(networks, rgb), vector, seed)
    cover = networks["lines"].run(None, {"rgb": rgb, "latent": x0, "style": np.float32([vector])})[0]
    palette = palette_of(ABOUT.styles, {name: 1.0}, TABLES)
    table = None if palette.table is None else torch.from_numpy(palette.table)
    paint, cover = (torch.from_numpy(x) for x in (decode(networks, x0).clip(0, 1), cover))
    return composed(paint, cover, table, shares_of(palette.ink, palette.lines, 1.0)).numpy()


def psnr(a, b):
    return -10 * np.log10(np.mean((a - b) ** 2))


def test_the_bundle_is_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 20_000_000


def test_its_hashes_match_and_a_changed_byte_is_seen(tmp_path):
    load_bundle(str(FOLDER))
    torn = tmp_path / "torn"
    shutil.copytree(FOLDER, torn)
    data = bytearray((torn / "decoder.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (torn / "decoder.onnx").write_bytes(data)
    with pytest.raises(BundleError, match=r"decoder\.onnx"):
        load_bundle(str(torn))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (200, 360), (72, 136)])
def test_any_multiple_of_8_goes_through(networks, bundle, height, width):
    z = encode(networks, cloudy(height, width, 0))
    assert z.shape == (1, bundle.about.latent.channels, height // 8, width // 8)
    x0 = stylise(networks, z, bundle.about.styles[bundle.about.default_style].vector)
    assert decode(networks, x0).shape == (1, 3, height, width)


def test_latents_are_about_white(networks):
    """Exactly white over photographs; these pictures, which have more detail, come near."""
    z = np.concatenate([encode(networks, cloudy(256, 256, i)) for i in range(4)])
    off = np.abs(z.mean((0, 2, 3)))
    assert off.mean() < 0.5 and off.max() < 1.5
    assert 0.5 < z.std() < 2.0


def test_a_round_trip_keeps_the_picture_and_a_second_one_changes_little(networks):
    rgb = cloudy(256, 256, 5, slope=2.0)
    once = decode(networks, encode(networks, rgb))
    twice = decode(networks, encode(networks, once))
    assert psnr(once, rgb) > 31
    assert psnr(twice, once) > 36
    assert psnr(rgb.mean((2, 3), keepdims=True), rgb) < 20  # the control: a flat picture


def test_the_encoder_of_the_past_says_of_decoded_pictures_what_the_other_does(networks, bundle):
    """Moved by a part of a pixel, as they come back; a pixel off, the control, is farther."""
    vector = bundle.about.styles[bundle.about.default_style].vector
    decoded = decode(networks, stylise(networks, encode(networks, cloudy(128, 192, 3)), vector))
    back, off = (
        cv2.warpAffine(decoded[0].transpose(1, 2, 0), np.float32([[1, 0, x], [0, 1, 0.6]]), (192, 128), flags=2)
        .clip(0, 1)
        .transpose(2, 0, 1)[None]
        for x in (0.3, 1.3)
    )
    wanted = encode(networks, back)
    (past,) = networks["encoder_past"].run(None, {"rgb": back})

    def gap(z):
        return np.square(z - wanted)[..., 1:-1, 1:-1].mean()

    assert gap(past) < 0.005 and 4 * gap(past) < gap(encode(networks, off)), (gap(past), gap(encode(networks, off)))


def test_strength_0_is_the_source_and_half_strength_lies_between(networks, bundle):
    z = encode(networks, cloudy(128, 128, 1))
    vector = np.array(bundle.about.styles[bundle.about.default_style].vector)
    gap = [np.abs(stylise(networks, z, vector * s) - z).mean() for s in (0.0, 0.5, 1.0)]
    assert gap[0] == 0
    assert 0.2 * gap[2] < gap[1] < 0.8 * gap[2]


def test_every_two_styles_differ_twice_as_much_as_two_noises_of_one(networks):
    rgb = cloudy(128, 192, 2)
    styled, other_noise = ({name: picture(networks, rgb, name, seed) for name in ABOUT.styles} for seed in (0, 1))
    for a, b in itertools.combinations(ABOUT.styles, 2):
        wobble = max(np.abs(styled[name] - other_noise[name]).mean() for name in (a, b))
        assert np.abs(styled[a] - styled[b]).mean() > 2 * wobble, (a, b)


def paint(networks, rgb, name, steps):
    """The paint layer [h,w,3] after so many steps, without fusion."""
    vector, noise = np.float32([ABOUT.styles[name].vector]), np.random.default_rng(0).standard_normal
    z = x0 = encode(networks, rgb)
    noise = noise(z.shape).astype(np.float32)
    table = levels(ABOUT.levels.schedule, ABOUT.levels.beta_start, ABOUT.levels.beta_end, ABOUT.levels.train_timesteps)
    for level in steps_for(lambda t: level_at(table, t), 1.0, steps, ABOUT.steps.top, ABOUT.steps.floor):
        at = np.float32([[level.alpha, level.sigma]])
        feed = {"x": at[0, 0] * x0 + at[0, 1] * noise, "source": z, "level": at, "style": vector}
        x0 = networks["unet"].run(None, feed)[0]
    return decode(networks, x0)[0].transpose(1, 2, 0).clip(0, 1)


@pytest.mark.parametrize("name", ["ukiyoe", "neon", "pencil", "watercolour", "oil", "starry", "chalk"])
def test_each_step_more_deepens_the_style(networks, name):
    """Towards what the painters call the deep paint and away from the paint of one step; every paint layer."""
    rgb = cloudy(192, 256, 3, slope=1.5)
    plate = painted((255 * rgb[0].transpose(1, 2, 0) + 0.5).astype(np.uint8))
    place = 1 + PAINTS.index(next(p.paint for p in PAINTERS if p.name == name))
    first, deep = (plate.pictures[i].astype(np.float32) / 255 for i in (place, place + len(PAINTS)))
    way = deep - first
    gone = [float(((paint(networks, rgb, name, steps) - first) * way).sum() / (way**2).sum()) for steps in range(1, 5)]
    assert gone == sorted(gone) and gone[3] - gone[0] > 0.3, gone


def luma(rgb):
    """[1,3,h,w] -> [h,w], Rec. 709."""
    return np.tensordot(np.float32([0.2126, 0.7152, 0.0722]), rgb[0], 1)


def test_night_stays_night(networks):
    day = cloudy(128, 192, 4)
    lit = {
        name: [luma(picture(networks, np.float32(gain) * day, name)).mean() for gain in (0.12, 1)]
        for name in ABOUT.styles
    }
    kept = np.array([night / by_day for night, by_day in lit.values()])
    assert kept.mean() < 0.7 and kept.max() < 1
    assert min(by_day for _, by_day in lit.values()) > 0.15, "the control: by day no style is dark"


LEGIBLE = {"neon": 0.4}
"""What is asked of a style whose letters glow."""


def test_letters_stay_letters(networks):
    page = np.full((96, 256, 3), 245, np.uint8)
    for line, y, scale in (("quick brown foxes", 40, 0.45), ("JUMP OVER A DOG", 70, 0.6)):
        cv2.putText(page, line, (8, y), cv2.FONT_HERSHEY_SIMPLEX, scale, (15, 15, 15), 1, cv2.LINE_AA)
    rgb = (page.transpose(2, 0, 1)[None] / 255).astype(np.float32)

    def legibility(styled, turned=1):
        """How the fine detail of the lines goes with that of the page."""
        ours, theirs = ((plane - cv2.blur(plane, (11, 11)))[20:80] for plane in (styled, luma(rgb)))
        return np.corrcoef(ours.ravel(), theirs[:, ::turned].ravel())[0, 1]

    for name in ABOUT.styles:
        styled = luma(picture(networks, rgb, name))
        assert abs(legibility(styled)) > LEGIBLE.get(name, 0.7), name  # white on blue is as good as black on white
        assert abs(legibility(styled, turned=-1)) < 0.3, "the control: other letters"


def recursion(networks, vector, weight, frames=20, first=None):
    """(first, last) paint of a still scene, entry and exit fused, the past pulled by half a pixel to and fro.

    Bilinear, the softest pull there is: as flow that errs, and worse.
    """
    z = encode(networks, cloudy(128, 128, 3))
    noise = np.random.default_rng(0).standard_normal(z.shape).astype(np.float32)
    first = shown = decode(networks, stylise(networks, z, vector)) if first is None else first
    for frame in range(frames):
        reference = encode(networks, (shown + np.roll(shown, 1 - 2 * (frame % 2), 3)) / 2)
        x = TOP[0, 0] * ((1 - weight) * z + weight * reference) + TOP[0, 1] * noise
        feed = {"x": x, "source": z, "level": TOP, "style": np.float32([vector])}
        x0 = networks["unet"].run(None, feed)[0]
        shown = decode(networks, (1 - weight) * x0 + weight * reference)
    return first, shown


def sharpness(rgb):
    return (4 * rgb - sum(np.roll(rgb, by, axis) for by in (1, -1) for axis in (2, 3)))[..., 1:-1, 1:-1].var()


def test_a_long_recursion_neither_blurs_nor_drifts(networks, bundle):
    vector = bundle.about.styles[bundle.about.default_style].vector
    first, fused = recursion(networks, vector, np.float32(0.7))
    assert np.abs(fused.mean((2, 3)) - first.mean((2, 3))).max() < 0.03
    assert sharpness(fused) > 0.45 * sharpness(first)  # so fine a first picture that half of it is the pull's to blur
    fine = cloudy(128, 128, 3)
    _, only_past = recursion(networks, vector, np.float32(1.0), first=fine)
    assert sharpness(only_past) < 0.4 * sharpness(fine)  # the control: nothing new comes in
