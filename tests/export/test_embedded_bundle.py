"""The bundle in the package: small, whole, white, faithful, and its styles are told apart, in either precision."""

import itertools
import shutil

import cv2
import numpy as np
import onnxruntime as ort
import pytest

from warpfuse.engine.bundle import load_bundle, shipped_bundles
from warpfuse.engine.errors import BundleError
from warpfuse.engine.precision import cpu_flags, gains_by

FOLDER = shipped_bundles() / "embedded"
TOP = np.float32([[0.0683, 0.9977]])  # alpha, sigma of timestep 999


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
    return {kind: ort.InferenceSession(bundle.network(kind), options) for kind in ("encoder", "unet", "decoder")}


def encode(networks, rgb):
    return networks["encoder"].run(None, {"rgb": rgb})[0]


def decode(networks, z):
    return networks["decoder"].run(None, {"latent": z})[0]


def stylise(networks, z, vector, seed=0):
    noise = np.random.default_rng(seed).standard_normal(z.shape).astype(np.float32)
    x = TOP[0, 0] * z + TOP[0, 1] * noise
    return networks["unet"].run(None, {"x": x, "source": z, "level": TOP, "style": np.float32([vector])})[0]


def psnr(a, b):
    return -10 * np.log10(np.mean((a - b) ** 2))


def test_it_is_small():
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


def test_strength_0_is_the_source_and_half_strength_lies_between(networks, bundle):
    z = encode(networks, cloudy(128, 128, 1))
    vector = np.array(bundle.about.styles[bundle.about.default_style].vector)
    gap = [np.abs(stylise(networks, z, vector * s) - z).mean() for s in (0.0, 0.5, 1.0)]
    assert gap[0] == 0
    assert 0.2 * gap[2] < gap[1] < 0.8 * gap[2]


def test_every_two_styles_differ_twice_as_much_as_two_noises_of_one(networks, bundle):
    z = encode(networks, cloudy(128, 192, 2))
    vectors = {name: style.vector for name, style in bundle.about.styles.items()}
    styled = {name: decode(networks, stylise(networks, z, vector)) for name, vector in vectors.items()}
    other_noise = {name: decode(networks, stylise(networks, z, vector, seed=1)) for name, vector in vectors.items()}
    apart = min(np.abs(styled[a] - styled[b]).mean() for a, b in itertools.combinations(vectors, 2))
    wobble = max(np.abs(styled[name] - other_noise[name]).mean() for name in vectors)
    assert apart > 2 * wobble


def luma(rgb):
    """[1,3,h,w] -> [h,w], Rec. 709."""
    return np.tensordot(np.float32([0.2126, 0.7152, 0.0722]), rgb[0], 1)


def test_night_stays_night(networks, bundle):
    day = cloudy(128, 192, 4)
    lit = {
        name: [
            luma(decode(networks, stylise(networks, encode(networks, gain * day), style.vector))).mean()
            for gain in (0.12, 1)
        ]
        for name, style in bundle.about.styles.items()
    }
    kept = np.array([night / by_day for night, by_day in lit.values()])
    assert kept.mean() < 0.7 and kept.max() < 1
    assert min(by_day for _, by_day in lit.values()) > 0.15, "the control: by day no style is dark"


def test_letters_stay_letters(networks, bundle):
    page = np.full((96, 256, 3), 245, np.uint8)
    for line, y, scale in (("quick brown foxes", 40, 0.45), ("JUMP OVER A DOG", 70, 0.6)):
        cv2.putText(page, line, (8, y), cv2.FONT_HERSHEY_SIMPLEX, scale, (15, 15, 15), 1, cv2.LINE_AA)
    rgb = (page.transpose(2, 0, 1)[None] / 255).astype(np.float32)

    def legibility(styled, turned=1):
        """How the fine detail of the lines goes with that of the page."""
        ours, theirs = ((plane - cv2.blur(plane, (11, 11)))[20:80] for plane in (styled, luma(rgb)))
        return np.corrcoef(ours.ravel(), theirs[:, ::turned].ravel())[0, 1]

    z = encode(networks, rgb)
    for name, style in bundle.about.styles.items():
        styled = luma(decode(networks, stylise(networks, z, style.vector)))
        assert legibility(styled) > 0.78, name
        assert abs(legibility(styled, turned=-1)) < 0.3, "the control: other letters"


def recursion(networks, vector, weight, frames=20):
    """(first, last) picture of a still scene, entry and exit fused, the past pulled by half a pixel to and fro.

    Bilinear, the softest pull there is: as flow that errs, and worse.
    """
    z = encode(networks, cloudy(128, 128, 3))
    noise = np.random.default_rng(0).standard_normal(z.shape).astype(np.float32)
    first = shown = decode(networks, stylise(networks, z, vector))
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
    _, only_past = recursion(networks, vector, np.float32(1.0))
    assert sharpness(only_past) < 0.4 * sharpness(first)  # the control: nothing new comes in
