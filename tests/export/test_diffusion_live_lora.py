"""Networks with live LoRAs: at 0 the network without, at a scale the merged one, in each row its own."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from safetensors.torch import save_file
from support import lora_bundles as make

from warpfuse.engine.artifacts import network_hash
from warpfuse.engine.bundle import load_bundle
from warpfuse.export.diffusion import written
from warpfuse.export.diffusion.checkpoint import open_checkpoint
from warpfuse.export.diffusion.lora.forms import LowRank
from warpfuse.export.diffusion.lora.live import Branch, Scales, attach_loras, live_names
from warpfuse.export.diffusion.lora.merging import Lora
from warpfuse.export.onnx_writing import ExportError
from warpfuse.export.targets import Targets
from warpfuse.export.torch_program import run_program

MERGED_AT = list(make.MERGED_AT.values())


class Network:
    """A network of each of the three bundles, fed the same."""

    def __init__(self, bundles, kind):
        folders = {"base": bundles.base, "live": bundles.live, "merged": bundles.merged}
        paths = {name: load_bundle(str(folder)).network(kind) for name, folder in folders.items()}
        self.sessions = {name: ort.InferenceSession(path) for name, path in paths.items()}
        random = np.random.default_rng(0)
        self.feed = {}
        for one in self.sessions["base"].get_inputs():
            values = random.integers(0, 200, one.shape) if "int64" in one.type else random.standard_normal(one.shape)
            self.feed[one.name] = values.astype(np.int64 if "int64" in one.type else np.float32)
        if "timestep" in self.feed:
            self.feed["timestep"] = np.array([601.0, 33.0], np.float32)

    def __call__(self, name, scales=None):
        feed = self.feed if scales is None else {**self.feed, "lora_scale": np.array(scales, np.float32)}
        return self.sessions[name].run(None, feed)


@pytest.mark.parametrize("kind", ["unet", "text"])
def test_at_0_it_is_the_network_without_and_at_a_scale_the_merged_one(lora_bundles, kind):
    network = Network(lora_bundles, kind)
    rows = make.ROWS if kind == "unet" else 1
    base, merged = network("base"), network("merged")
    for off, without in zip(network("live", [[0.0, 0.0]] * rows), base, strict=True):
        assert np.array_equal(off, without), "to the bit"
    for on, wanted, without in zip(network("live", [MERGED_AT] * rows), merged, base, strict=True):
        np.testing.assert_allclose(on, wanted, atol=1e-4, rtol=1e-4)
        assert np.abs(wanted - without).max() > 0.05, "the control: they do something"


def test_every_row_has_its_own_scales(lora_bundles):
    network = Network(lora_bundles, "unet")
    base, merged, mixed = (network(*how)[0] for how in (["base"], ["merged"], ["live", [[0.0, 0.0], MERGED_AT]]))
    np.testing.assert_allclose(mixed[1], merged[1], atol=1e-4, rtol=1e-4)
    assert np.array_equal(mixed[0], base[0])
    assert np.abs(mixed[1] - base[1]).max() > 0.05


@pytest.mark.parametrize("lora_bundles", ["sd15"], indirect=True)
def test_without_moving_the_branches_0_is_not_quite_nothing(lora_bundles, tmp_path, monkeypatch):
    """The control of the first law. Where this fails the runtime no longer sums inside a layer: delete `live_graph`."""
    monkeypatch.setattr(written, "add_after_residual", lambda graph: None)
    make.export(lora_bundles.source, tmp_path / "live", loras=[Lora(lora_bundles.files["paint"])], live=True)
    network = Network(lora_bundles, "unet")
    session = ort.InferenceSession(tmp_path / "live" / "unet.onnx")
    (off,) = session.run(None, {**network.feed, "lora_scale": np.zeros((make.ROWS, 1), np.float32)})
    (without,) = network("base")
    gap = np.abs(off - without).max()
    if gap == 0:
        pytest.skip("this processor has no kernels that sum inside a layer")
    assert gap < 1e-4


@pytest.mark.parametrize("lora_bundles", ["sd15"], indirect=True)
def test_the_bundle_lists_them(lora_bundles):
    about = load_bundle(str(lora_bundles.live)).about
    assert [(lora.name, lora.default, lora.text) for lora in about.loras] == [
        ("paint", 0.75, True),
        ("line", 0.0, False),
    ]
    assert "LoRA paint.safetensors live" in about.source


@pytest.mark.parametrize("lora_bundles", ["sd15"], indirect=True)
@pytest.mark.parametrize("dtype, off", [("fp16", 0.01), ("bf16", 0.05)])
def test_half_precision_and_programs_of_torch_keep_them(lora_bundles, tmp_path, dtype, off):
    loras = [Lora(path) for path in lora_bundles.files.values()]
    targets = Targets(("onnx", "torch"))
    make.export(lora_bundles.source, tmp_path / "half", loras=loras, live=True, dtype=dtype, targets=targets)
    single = Network(lora_bundles, "unet")
    for scales in ([0.0, 0.0], MERGED_AT):
        feed = {**single.feed, "lora_scale": np.array([scales] * make.ROWS, np.float32)}
        (wanted,) = single("live", [scales] * make.ROWS)
        program = tmp_path / "half" / "unet.pt2"
        found = [
            run_program(program, {name: torch.from_numpy(value) for name, value in feed.items()})["output"].numpy()
        ]
        if dtype == "fp16":  # ONNX Runtime has no kernels for bfloat16 on a CPU
            found.append(ort.InferenceSession(tmp_path / "half" / "unet.onnx").run(None, feed)[0])
        for one in found:
            assert np.abs(one - wanted).max() < off * np.abs(wanted).max()


@pytest.mark.parametrize("lora_bundles", ["sd15"], indirect=True)
def test_another_lora_is_another_network_to_the_cache_and_another_default_is_not(lora_bundles, tmp_path):
    def unet(name, file, default):
        return make.export(
            lora_bundles.source, tmp_path / name, loras=[Lora(file, default)], live=True, steps=1
        ).network("unet")

    line, paint = lora_bundles.files["line"], lora_bundles.files["paint"]
    first, same, other = unet("a", line, 1.0), unet("b", line, -1.0), unet("c", paint, 1.0)
    assert network_hash(first) == network_hash(same)
    assert network_hash(first) != network_hash(other)


@pytest.mark.parametrize("size", [1e-6, 1.0, 3e4])
def test_halves_of_any_size_stay_in_what_half_precision_holds(size):
    """A file may have all of a LoRA's size in one of its halves; the product is the same to the bit."""
    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(64, 32)
    down, up = size * torch.randn(4, 64, generator=generator), torch.randn(32, 4, generator=generator) / size
    branch = Branch(layer, [(0, LowRank(layer, False, down, up))], Scales())
    assert torch.equal(branch.up @ branch.down, up @ down)
    x = torch.randn(5, 64, generator=generator)
    inner = 4 * torch.nn.functional.linear(x, branch.down)
    assert 0.1 < inner.std() < 10
    rounded = torch.nn.functional.linear(x, branch.down.half().float()) @ branch.up.half().float().T
    assert (rounded - x @ down.T @ up.T).abs().max() < 0.01 * (x @ down.T @ up.T).abs().max()


@pytest.mark.parametrize(
    "loras, says",
    [
        ([], "give --lora FILE.safetensors too"),
        ([Lora("a/ink.safetensors"), Lora("b/ink.safetensors")], "both be called 'ink'. Rename one of the files"),
        ([Lora("a b.safetensors"), Lora("a.b.safetensors")], "both be called 'a-b'"),
        ([Lora("--.safetensors")], "Rename it"),
        ([Lora("ink.safetensors", 5.0)], "expected a scale from -4 to 4"),
        ([Lora(f"{n}.safetensors") for n in range(17)], "17 LoRAs, expected 16 at most"),
    ],
)
def test_what_cannot_be_live_together_is_one_line(loras, says):
    loras = [Lora(Path(lora.path), lora.scale) for lora in loras]
    with pytest.raises(ExportError, match=says) as caught:
        live_names(loras)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lora_bundles", ["sd15"], indirect=True)
def test_one_that_does_not_fit_leaves_the_checkpoint_as_it_was(lora_bundles, tmp_path):
    checkpoint = open_checkpoint(str(lora_bundles.source))
    save_file({"lora_unet_conv_in.lora_down.weight": torch.zeros(3, 9, 3, 3),
               "lora_unet_conv_in.lora_up.weight": torch.zeros(32, 3, 1, 1)}, tmp_path / "bad.safetensors")  # fmt: skip
    with pytest.raises(ExportError, match="made for another architecture"):
        attach_loras(checkpoint, [Lora(lora_bundles.files["line"]), Lora(tmp_path / "bad.safetensors")])
    assert not any(isinstance(module, Branch) for module in checkpoint.unet.modules())
