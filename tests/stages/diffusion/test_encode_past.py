"""Which network encodes the picture that is fed back, told by what comes out of whole graphs."""

import itertools

import numpy as np
import pytest
from support.exact import write

import warpfuse
from warpfuse.stages.diffusion.settings import EncodeSettings, past_encoder

WAYS = {
    "at entry and exit": {"stages": {"fuse": {"reference": "picture"}}},
    "at entry": {"stages": {"fuse": {"reference": "output"}}},
    "in a stream": {"steps": 2, "stages": {"predict": {"stream": True}}},
    "between steps": {"steps": 2, "stages": {"fuse": {"reference": "latent", "between": "picture"}}},
}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """(one with an encoder for what is fed back, which halves it; one without)."""
    folder = tmp_path_factory.mktemp("exact")
    return write(folder / "with", past=True), write(folder / "without")


def shown(bundle, way, encode=None):
    """Pictures of a run over one that stands still, in the style that shows what the UNet starts from."""
    random = np.random.default_rng(0)
    rgb = np.kron(random.integers(0, 256, (6, 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
    stages = {**way["stages"], **({} if encode is None else {"encode": encode})}
    given = {**way, "stages": stages, "fusion": 0.8, "prompt": "noisy", "size": (64, 48)}
    with warpfuse.Pipeline(bundle=bundle, **given) as pipeline:
        found = [pipeline.push(rgb) for _ in range(6)]
    return [picture for picture in found if picture is not None]


@pytest.mark.parametrize("way", WAYS)
def test_the_bundles_own_is_taken_and_can_be_left(bundles, way):
    """Bit for bit as without it where it is left; the first picture, which has no past, is the same in either case."""
    with_own, without = bundles
    plain, own, left = (
        shown(*given)
        for given in ((without, WAYS[way]), (with_own, WAYS[way]), (with_own, WAYS[way], {"past": "encoder"}))
    )
    assert len(plain) == len(own) == len(left) > 1
    assert all(np.array_equal(a, b) for a, b in zip(plain, left, strict=True))
    assert np.array_equal(own[0], plain[0])
    assert any(not np.array_equal(a, b) for a, b in itertools.islice(zip(own, plain, strict=True), 1, None))


def test_encoding_twice_takes_the_encoder_of_the_source(bundles):
    with_own, without = bundles
    plain, own = (shown(bundle, WAYS["at entry and exit"], {"twice": True}) for bundle in (without, with_own))
    assert all(np.array_equal(a, b) for a, b in zip(plain, own, strict=True))


@pytest.mark.parametrize(
    "settings, networks, wanted",
    [
        ({}, ("encoder", "encoder_past"), "encoder_past"),
        ({}, ("encoder",), "encoder"),
        ({"past": "encoder"}, ("encoder", "encoder_past"), "encoder"),
        ({"twice": True}, ("encoder", "encoder_past"), "encoder"),
    ],
)
def test_the_settings_say_which(settings, networks, wanted):
    assert past_encoder(EncodeSettings(**settings), networks) == wanted
