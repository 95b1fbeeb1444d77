"""Networks of a run: for its size where they are built for one, and replaced by a faster backend while frames flow."""

import re

import numpy as np
import pytest
import torch

from warpfuse.engine import open as opening
from warpfuse.engine.bundle import load_bundle
from warpfuse.engine.bundle_file import FlowBundleFile
from warpfuse.graph.pipeline import Pipeline
from warpfuse.graph.plan.config import validate
from warpfuse.graph.runtime.engines import flow_shapes, shapes_of


class Encoder(torch.nn.Module):
    def forward(self, rgb):
        return {"latent": torch.pixel_unshuffle(rgb, 8).unflatten(1, (3, 64)).transpose(1, 2).flatten(1, 2)}


class Wrong(torch.nn.Module):
    def forward(self, rgb):
        return {"latent": torch.pixel_unshuffle(rgb, 8)}


@pytest.fixture
def upgraded(exact_bundle, tmp_path, monkeypatch, caplog):
    """A run on the CPU that turns its encoder over to torch; the others have no program to turn over to."""
    from support import exact

    folder = exact.write(tmp_path / "exact")
    monkeypatch.setattr(opening, "UPGRADES", {"cpu": ("torch",)})
    caplog.set_level("INFO", "warpfuse")

    def run(network):
        torch.export.save(torch.export.export(network(), (torch.rand(1, 3, 32, 48),)), f"{folder}/encoder.pt2")
        pictures = []
        with Pipeline(bundle=folder, fusion=0, prompt="same") as pipeline:
            rng = np.random.default_rng(0)
            while not any("encoder: " in line for line in caplog.messages):
                pictures.append(rng.integers(0, 256, (32, 48, 3), dtype=np.uint8))
                assert np.array_equal(pipeline.push(pictures[-1]), pictures[-1]), "before, at and after the change"
            for picture in pictures[:3]:
                assert np.array_equal(pipeline.push(picture), picture)
            stats = pipeline.close()
        return stats, [line for line in caplog.messages if line.startswith("encoder: ")]

    return run


def test_a_network_changes_its_backend_between_two_frames(upgraded):
    stats, said = upgraded(Encoder)
    assert said == ["encoder: runs on torch now, before on onnxruntime"]
    assert stats.backend == "onnxruntime+torch", "the others stayed"


def test_one_that_disagrees_is_refused_and_the_run_goes_on(upgraded):
    stats, said = upgraded(Wrong)
    assert len(said) == 1 and re.match("encoder: stays on onnxruntime: torch is built but disagrees", said[0])
    assert stats.backend == "onnxruntime"


def test_a_backend_asked_for_by_name_is_not_replaced():
    assert opening.upgrade_of("onnxruntime", "onnxruntime", "cuda:0") is None
    assert opening.upgrade_of("auto", "onnxruntime", "cpu") is None, "on a CPU nothing is faster"


def test_shapes_are_those_the_networks_are_fed(exact_bundle):
    about = load_bundle(exact_bundle).about
    assert shapes_of(about, "unet", (48, 32), 2, "cpu") is None, "a CPU builds for no size"
    shapes = {kind: shapes_of(about, kind, (48, 32), 2, "cuda:0") for kind in ("encoder", "unet", "decoder")}
    latent = (2, 192, 4, 6)
    assert shapes["encoder"] == {"rgb": (1, 3, 32, 48)} and shapes["decoder"] == {"latent": (1, *latent[1:])}
    assert shapes["unet"] == {"x": latent, "source": latent, "level": (2, 2), "style": (2, 3)}


@pytest.mark.parametrize("kind", ["encoder", "unet", "decoder"])
def test_a_network_opens_for_those_shapes_and_refuses_others(exact_bundle, kind):
    bundle = load_bundle(exact_bundle)
    shapes = shapes_of(bundle.about, kind, (48, 32), 2, "cuda:0")
    engine = opening.open_engine(bundle.network(kind), "onnxruntime", "cpu", shapes=shapes)
    assert {spec.name: spec.shape for spec in engine.inputs} == shapes
    engine.close()


@pytest.mark.parametrize(
    "size, long_side, wanted",
    [
        ((512, 288), 384, (384, 224)),  # 216, rounded to a multiple
        ((288, 512), 384, (224, 384)),
        ((320, 192), 384, (320, 192)),  # never enlarged
        ((1920, 1080), None, (1920, 1088)),
        ((2000, 100), 384, (384, 64)),  # the least it takes
    ],
)
def test_a_flow_network_of_many_sizes_is_opened_for_that_of_the_frames(size, long_side, wanted):
    sizes = {"multiple": 16, "minimum": 64, "default_long_side": 384}
    common = {"format": 1, "kind": "flow", "name": "f", "iterations": 1, "networks": {"flow": "flow.onnx"},
              "licence": "none", "source": "a test", "files": {"flow.onnx": "0" * 64}}  # fmt: skip
    about = FlowBundleFile.model_validate({**common, "sizes": sizes})
    width, height = wanted
    assert flow_shapes(about, size, long_side) == dict.fromkeys(("cur", "prev"), (1, 3, height, width))
    fixed = FlowBundleFile.model_validate({**common, "size": (96, 64)})
    assert flow_shapes(fixed, size, long_side) is None, "its file says it itself"


def test_rows_are_those_of_the_batch():
    from warpfuse.graph.runtime.sampling import rows_of

    bundle = load_bundle("embedded")

    def rows(**keys):
        return rows_of(validate(keys), bundle)

    stream = {"stages": {"predict": {"stream": True}}}
    assert (rows(steps=3), rows(steps=3, **stream)) == (1, 3)
    assert rows(steps=3, stages={"predict": {"stream": True, "guidance": "full"}}) == 6
