"""The UNet in integers beside the one in float: the same pictures to the eye, each row for itself, and it is said."""

import hashlib

import numpy as np
import onnx
import pytest
import torch

from warpfuse.engine.bundle import load_bundle, shipped_bundles
from warpfuse.engine.errors import BadInput
from warpfuse.engine.open import open_engine
from warpfuse.export.embedded.int8 import DRAWN, KEPT
from warpfuse.export.embedded.levels import alphas_and_sigmas
from warpfuse.export.embedded.train_student import START_TIMESTEP
from warpfuse.export.integer_graph import convolutions, in_integers, ranges
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.streams import read_streams
from warpfuse.graph.run import run
from warpfuse.graph.runtime import context as opening

LEAST_DB = 35.0
LEVEL = np.asarray(alphas_and_sigmas(), np.float32)[[START_TIMESTEP]]  # where one step starts
PATTERN = "pattern:96x64@25,frames={}"
VNNI = frozenset({"avx512_vnni"})


def cloudy(height, width, seed):
    """rgb [1,3,h,w] in [0,1], amplitude 1/f, mostly grey: as full of detail as a photograph."""
    rng = np.random.default_rng(seed)
    f = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    f[0, 0] = 1
    noise = rng.standard_normal((4, height, width))
    planes = np.fft.ifft2(np.fft.fft2(noise[:3] * 0.5 + noise[3:]) / f).real
    return (0.5 + 0.2 * planes / planes.std()).clip(0, 1).astype(np.float32)[None]


@pytest.fixture(scope="module")
def bundle():
    return load_bundle(str(shipped_bundles() / "embedded"))


@pytest.fixture(scope="module")
def opened():
    """path -> engine of a network, opened once as a run opens it."""
    kept = {}

    def engine(path):
        if path not in kept:
            kept[path] = open_engine(path, "onnxruntime", "cpu", threads=1)
        return kept[path]

    yield engine
    for one in kept.values():
        one.close()


@pytest.fixture(scope="module")
def feeds(bundle, opened):
    """style -> what the UNet is fed for a seeded picture."""
    found = {}
    for k, (name, style) in enumerate(bundle.about.styles.items()):
        z = opened(bundle.network("encoder"))({"rgb": torch.from_numpy(cloudy(128, 192, k))})["latent"].clone()
        n = torch.from_numpy(np.random.default_rng(k).standard_normal(z.shape).astype(np.float32))
        x = float(LEVEL[0, 0]) * z + float(LEVEL[0, 1]) * n
        found[name] = {"x": x, "source": z, "level": torch.from_numpy(LEVEL), "style": torch.tensor([style.vector])}
    return found


@pytest.fixture(scope="module")
def fidelity(bundle, opened, feeds):
    """unet -> PSNR in dB of its pictures to those in float, by style."""
    decoder = opened(bundle.network("decoder"))
    shown = {}

    def picture(unet, name):
        if (unet, name) not in shown:
            shown[unet, name] = decoder({"latent": opened(unet)(feeds[name])["output"]})["rgb"].clone()
        return shown[unet, name]

    def figures(unet):
        gaps = {name: picture(unet, name) - picture(bundle.network("unet"), name) for name in feeds}
        return {name: float(-10 * torch.log10(gap.square().mean())) for name, gap in gaps.items()}

    return figures


@pytest.fixture(scope="module")
def other(bundle, feeds, tmp_path_factory):
    """(kept, bits) -> file of the same UNet made of these pictures with other layers kept in float, or fewer bits."""
    model = onnx.load_model(bundle.network("unet"))

    def made(kept, bits):
        weights = convolutions(model, kept)
        seen = ranges(model, weights, [{k: v.numpy() for k, v in feed.items()} for feed in feeds.values()])
        path = tmp_path_factory.mktemp("int8") / "unet.onnx"
        onnx.save(in_integers(model, weights, seen, bits), path)
        return path

    return made


def test_every_style_is_near_to_what_it_is_in_float(bundle, fidelity, other):
    shipped = fidelity(bundle.in_precision("int8").network("unet"))
    assert min(shipped.values()) > LEAST_DB, shipped
    fewer = fidelity(other(KEPT, 5))
    assert max(fewer.values()) < LEAST_DB, "control: 5 bits"


def test_the_convolutions_at_the_ends_are_worth_keeping(fidelity, other):
    kept, none = fidelity(other(KEPT, 8)), fidelity(other(DRAWN, 8))
    assert all(kept[name] > none[name] + 2 for name in kept), (kept, none)


def test_strength_0_is_the_source_to_the_bit(bundle, opened, feeds):
    unet = opened(bundle.in_precision("int8").network("unet"))
    for feed in feeds.values():
        nothing = {**feed, "style": torch.zeros_like(feed["style"])}
        assert torch.equal(unet(nothing)["output"], feed["source"])
        assert not torch.equal(unet(feed)["output"], feed["source"]), "control"


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (72, 136), (200, 360)])
def test_a_row_has_the_bytes_it_has_alone(bundle, threads, height, width):
    unet = open_engine(bundle.in_precision("int8").network("unet"), "onnxruntime", "cpu", threads=threads)
    rng = np.random.default_rng(0)
    shape = (3, bundle.about.latent.channels, height // 8, width // 8)
    x, z = (torch.from_numpy(rng.standard_normal(shape).astype(np.float32)) for _ in range(2))
    style = torch.tensor([s.vector for s in bundle.about.styles.values()])[:3]
    feed = {"x": x, "source": 2 * z, "level": torch.from_numpy(LEVEL.repeat(3, 0)), "style": style}
    together = unet(feed)["output"].clone()
    for row in range(3):
        alone = unet({name: value[row : row + 1] for name, value in feed.items()})["output"]
        assert torch.equal(together[row : row + 1], alone)
    assert not torch.equal(together[:1], together[1:2]), "control"
    unet.close()


def written(path, **keys):
    """sha256 of what a run wrote, and its figures."""
    stats = run(validate({"source": PATTERN.format(12), "prompt": "ink", "sinks": [str(path)], **keys}))
    return hashlib.sha256(path.read_bytes()).hexdigest(), stats


def test_the_same_bytes_wherever_the_stages_run(tmp_path):
    one, stats = written(tmp_path / "one.mp4", precision="int8")
    apart, told = written(tmp_path / "apart.mp4", precision="int8", workers="stages")
    assert one == apart
    assert {stats.precision, told.precision, stats.to_dict()["precision"]} == {"int8"}
    other, stats = written(tmp_path / "float.mp4", precision="float")
    assert other != one and stats.precision == "float", "control"


@pytest.mark.parametrize("stream", [False, True])
def test_streams_that_share_it_have_the_bytes_they_have_alone(tmp_path, stream):
    keys = {"steps": 2, "stages": {"predict": {"stream": True}}} if stream else {}
    kinds = {"ink": {"prompt": "ink"}, "oil": {"prompt": "oil", "seed": 5}}
    told = {
        name: {"source": PATTERN.format(12), "sinks": [str(tmp_path / f"{name}.mp4")], **own}
        for name, own in kinds.items()
    }
    stats = run(read_streams({"precision": "int8", "streams": told, **keys}))
    assert stats.precision == "int8" and set(stats.networks) >= {"encoder", "unet", "decoder"}
    for name, own in kinds.items():
        alone, _ = written(tmp_path / "alone.mp4", precision="int8", **own, **keys)
        assert hashlib.sha256((tmp_path / f"{name}.mp4").read_bytes()).hexdigest() == alone, name
    other, _ = written(tmp_path / "alone.mp4", precision="float", prompt="ink", **keys)
    assert hashlib.sha256((tmp_path / "ink.mp4").read_bytes()).hexdigest() != other, "control"


@pytest.mark.parametrize(("flags", "wanted"), [(VNNI, "int8"), (frozenset(), "float")])
def test_auto_goes_by_the_processor_and_says_so(tmp_path, monkeypatch, flags, wanted):
    monkeypatch.setattr(opening, "cpu_flags", lambda: flags)
    said = []
    config = validate({"source": PATTERN.format(2), "sinks": ["null:"]})
    assert run(config, say=said.append).precision == wanted
    (line,) = [line for line in said if line.startswith("networks: embedded")]
    assert f"UNet in {wanted} (" in line and "avx512_vnni" in line


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"precision": "int4"}, "precision"),
        ({"precision": "int8", "bundle": "exact"}, "bundle exact has no UNet in 8-bit integers"),
        ({"precision": "int8", "backend": "torch"}, "by onnxruntime on cpu, got torch on cpu"),
    ],
)
def test_a_precision_that_cannot_be_used_is_one_line(exact_bundle, keys, says):
    keys = {**keys, "bundle": exact_bundle} if "bundle" in keys else keys
    with pytest.raises(BadInput, match=says) as told:
        run(validate({"source": PATTERN.format(2), "sinks": ["null:"], **keys}))
    assert "\n" not in str(told.value)


def test_precision_is_one_for_all_streams():
    streams = {name: {"source": PATTERN.format(2), "sinks": ["null:"]} for name in ("a", "b")}
    streams["a"]["precision"] = "int8"
    with pytest.raises(BadInput, match=r"streams\.a\.precision: is the same for all streams"):
        read_streams({"streams": streams})
