"""ControlNets and T2I-Adapters in the UNet's file: what diffusers gives, exactly off, rows and nets apart."""

import copy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from diffusers import T2IAdapter
from diffusers.models.controlnets.multicontrolnet import MultiControlNetModel
from support.random_checkpoint import write_random_checkpoint
from support.random_controls import adapter, controlnet, write_adapter, write_controlnet

from warpfuse.engine.artifacts import ArtifactCache
from warpfuse.engine.bundle import load_bundle
from warpfuse.engine.tensorrt_build import plan_key
from warpfuse.engine.tensorrt_module import TENSORRT_RTX, not_installed
from warpfuse.export.diffusion.bundle import Request, export_checkpoint
from warpfuse.export.diffusion.checkpoint import open_checkpoint
from warpfuse.export.diffusion.control_files import ControlSource, parse_control
from warpfuse.export.onnx_writing import ExportError
from warpfuse.export.targets import Targets
from warpfuse.export.torch_program import run_program

SIZE, ROWS = (96, 64), 2


@dataclass(frozen=True)
class Sources:
    """Folders of a checkpoint and of its controls."""

    checkpoint: Path
    controls: dict[str, Path] = field(default_factory=dict)

    def asked(self, *names):
        return [
            ControlSource(name, "adapter" if name in ("sketch", "colour") else "controlnet", str(self.controls[name]))
            for name in names
        ]


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """Family -> its `Sources`, when first asked for."""
    folder, known = tmp_path_factory.mktemp("controls"), {}

    def of(family):
        if family not in known:
            source = write_random_checkpoint(folder / family, family)
            controls = {
                "edges": write_controlnet(folder / f"{family}-edges", source, 1),
                "depth": write_controlnet(folder / f"{family}-depth", source, 3),
                "sketch": write_adapter(folder / f"{family}-sketch", source, 2),
                "colour": write_adapter(folder / f"{family}-colour", source, 4, channels=1),
            }
            known[family] = Sources(source, controls)
        return known[family]

    return of


def exported(sources, folder, *names, **changes):
    request = Request(**{"size": SIZE, "steps": ROWS, "dtype": "fp32", "controls": sources.asked(*names), **changes})
    return load_bundle(str(export_checkpoint(folder, open_checkpoint(str(sources.checkpoint)), request).folder))


def picture(seed=0):
    """[1, 3, H, W] in [0, 1]."""
    coarse = torch.rand(1, 3, 4, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, SIZE[::-1], mode="bicubic").clamp(0, 1)


def session(path):
    return ort.InferenceSession(path)


def hints(bundle, maps):
    """What the network of each control gives for its map, by the control's name."""
    return {
        control.name: session(bundle.network(f"control_{place}")).run(None, {"rgb": maps[control.name].numpy()})[0]
        for place, control in enumerate(bundle.about.controls)
    }


def fed(bundle, maps, scales, seed=0):
    """A feed of the UNet, by name. scales: of each control, a number for each row."""
    random = np.random.default_rng(seed)
    feed = {}
    for one in session(bundle.network("unet")).get_inputs():
        feed[one.name] = random.standard_normal(one.shape).astype(np.float16 if "float16" in one.type else np.float32)
    feed["timestep"] = np.array([801.0, 33.0], np.float32)
    given = hints(bundle, maps)
    for form, name, scale in (("controlnet", "hint", "control_scale"), ("adapter", "features", "adapter_scale")):
        those = [control.name for control in bundle.about.controls if control.form == form]
        if those:
            feed[name] = np.repeat(np.stack([given[one] for one in those], 1), ROWS, 0)
            feed[scale] = np.array([scales[one] for one in those], np.float32).T
    return feed


def run(bundle, feed):
    network = session(bundle.network("unet"))
    names = {one.name for one in network.get_inputs()}
    return network.run(None, {name: value for name, value in feed.items() if name in names})[0]


def reference(sources, feed, maps, scales):
    """What diffusers' UNet gives with the residuals that diffusers' own networks make of the maps; a row at a time."""
    from warpfuse.export.diffusion.networks import UNet

    checkpoint = open_checkpoint(str(sources.checkpoint))
    tensors = {name: torch.from_numpy(value).float() for name, value in feed.items()}
    rows = []
    for row in range(ROWS):
        told = {name: tensor[row : row + 1] for name, tensor in tensors.items()}
        added = {"text_embeds": told["pooled"], "time_ids": told["time_ids"]} if "pooled" in told else None
        own = [told[name] for name in ("x", "timestep", "context", "pooled", "time_ids") if name in told]
        nets = [name for name in scales if name in ("edges", "depth")]
        residuals = {}
        with torch.no_grad():
            if nets:
                from diffusers import ControlNetModel

                multi = MultiControlNetModel(
                    [ControlNetModel.from_pretrained(sources.controls[n], low_cpu_mem_usage=False) for n in nets]
                )
                down, middle = multi(
                    *own[:3], [maps[n] for n in nets], [scales[n][row] for n in nets],
                    added_cond_kwargs=added, return_dict=False,
                )  # fmt: skip
                residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
            features = None
            for name in (name for name in scales if name in ("sketch", "colour")):
                net = T2IAdapter.from_pretrained(sources.controls[name], low_cpu_mem_usage=False)
                shown = gray(maps[name]) if net.config.in_channels == 1 else maps[name]
                state = [scales[name][row] * feature for feature in net(shown)]
                features = state if features is None else [a + b for a, b in zip(features, state, strict=True)]
            if features is not None:
                residuals["down_intrablock_additional_residuals"] = features
            rows.append(UNet(checkpoint.unet)(*own, residuals=residuals))
    return torch.cat(rows).numpy()


def gray(rgb):
    """As Pillow makes a picture gray."""
    return (rgb * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)


def off(a, b):
    return float(np.abs(a.astype(np.float64) - b).max() / np.abs(b).max())


MAPS = {name: picture(seed) for seed, name in enumerate(("edges", "depth", "sketch", "colour"))}
EVERY = [("edges",), ("sketch",), ("edges", "depth"), ("edges", "sketch", "depth", "colour")]


@pytest.mark.parametrize("names", EVERY, ids="+".join)
@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_the_networks_compute_what_diffusers_does_each_row_at_its_scales(family, names, sources, tmp_path):
    bundle = exported(sources(family), tmp_path / "bundle", *names)
    scales = {name: (0.7 - 0.2 * place, 1.0) for place, name in enumerate(names)}
    feed = fed(bundle, MAPS, scales)
    found = run(bundle, feed)
    assert off(found, reference(sources(family), feed, MAPS, scales)) < 1e-4
    assert [control.name for control in bundle.about.controls] == list(names)
    other = {name: tensor.flip(-1) for name, tensor in MAPS.items()}
    assert off(found, reference(sources(family), feed, other, scales)) > 1e-2, "the control: other maps"


@pytest.mark.parametrize("family", ["sd15", "sd21", "sdxl", "lcm"])
def test_at_scale_0_it_is_the_network_without_to_the_bit(family, sources, tmp_path):
    plain = exported(sources(family), tmp_path / "plain")
    bundle = exported(sources(family), tmp_path / "bundle", "edges", "sketch")
    zero = {"edges": (0.0, 0.0), "sketch": (0.0, 0.0)}
    feed = fed(bundle, MAPS, zero)
    wanted = run(plain, feed)
    assert np.array_equal(run(bundle, feed), wanted)
    assert plain.about.controls == () and not any("control" in name for name in plain.about.networks)
    for name, scale in (("edges", "control_scale"), ("sketch", "adapter_scale")):
        on = run(bundle, {**feed, scale: np.ones_like(feed[scale])})
        assert off(on, wanted) > 1e-2, f"the control: {name} does something"


def test_a_row_at_scale_0_is_untouched_by_what_another_row_is_given(sources, tmp_path):
    bundle = exported(sources("sd15"), tmp_path / "bundle", "edges", "sketch")
    plain = run(exported(sources("sd15"), tmp_path / "plain"), fed(bundle, MAPS, {"edges": (0, 0), "sketch": (0, 0)}))
    feed = fed(bundle, MAPS, {"edges": (0.0, 0.9), "sketch": (0.0, 1.1)})
    assert np.array_equal(run(bundle, feed)[0], plain[0])
    feed["hint"][1] *= 100
    feed["features"][1] *= 100
    assert np.array_equal(run(bundle, feed)[0], plain[0])
    assert off(run(bundle, feed)[1], plain[1]) > 1e-2, "the control: its own row has them"


def test_torch_is_to_the_bit_too(sources):
    from warpfuse.export.diffusion.control import controlled
    from warpfuse.export.diffusion.control_files import open_controls
    from warpfuse.export.diffusion.networks import UNet

    checkpoint = open_checkpoint(str(sources("sd15").checkpoint))
    plain = UNet(copy.deepcopy(checkpoint.unet))
    controls = open_controls(checkpoint, sources("sd15").asked("edges", "sketch"), SIZE)
    given = [encoder(picture()) for _, encoder in controls.encoders(torch.float32)]
    network = controlled(UNet(checkpoint.unet), controls, SIZE)
    random = torch.Generator().manual_seed(0)
    own = (torch.randn(ROWS, 4, 8, 12, generator=random), torch.tensor([801.0, 33.0]),
           torch.randn(ROWS, 77, 32, generator=random))  # fmt: skip
    inputs = controls.typical(given, ROWS)
    with torch.no_grad():
        on = network(*own, *inputs.values())
        zeroed = {name: 0 * tensor if name.endswith("scale") else tensor for name, tensor in inputs.items()}
        assert torch.equal(network(*own, *zeroed.values()), plain(*own))
        assert (on - plain(*own)).abs().max() > 1e-2


def test_maps_of_swapped_colours_are_turned(sources, tmp_path):
    """A ControlNet of which the configuration says bgr."""
    source = sources("sd15").checkpoint
    turned = write_controlnet(tmp_path / "turned", source, 1, controlnet_conditioning_channel_order="bgr")
    known = Sources(source, {"edges": turned})
    bundle = exported(known, tmp_path / "bundle", "edges")
    feed = fed(bundle, MAPS, {"edges": (0.7, 0.7)})
    assert off(run(bundle, feed), reference(known, feed, MAPS, {"edges": (0.7, 0.7)})) < 1e-4


def test_a_shuffle_network_that_pools_is_as_diffusers_has_it(sources, tmp_path):
    source = sources("sd15").checkpoint
    net = controlnet(source, 5)
    net.register_to_config(global_pool_conditions=True)
    net.save_pretrained(tmp_path / "shuffle")
    known = Sources(source, {"edges": tmp_path / "shuffle"})
    bundle = exported(known, tmp_path / "bundle", "edges")
    feed = fed(bundle, MAPS, {"edges": (0.7, 0.3)})
    assert off(run(bundle, feed), reference(known, feed, MAPS, {"edges": (0.7, 0.3)})) < 1e-4


def test_a_light_adapter_is_as_diffusers_has_it(sources, tmp_path):
    source = sources("sd15").checkpoint
    known = Sources(source, {"sketch": write_adapter(tmp_path / "light", source, 6, light=True)})
    bundle = exported(known, tmp_path / "bundle", "sketch")
    feed = fed(bundle, MAPS, {"sketch": (0.7, 0.3)})
    assert off(run(bundle, feed), reference(known, feed, MAPS, {"sketch": (0.7, 0.3)})) < 1e-4


@pytest.mark.parametrize("family", ["sd15", "sd21", "sdxl"])
def test_in_half_precision_hints_are_halves(family, sources, tmp_path):
    names = ("edges", "sketch")
    bundle = exported(sources(family), tmp_path / "half", *names, dtype="fp16")
    scales = {"edges": (0.7, 1.0), "sketch": (1.0, 0.0)}
    feed = fed(bundle, MAPS, scales)
    assert feed["hint"].dtype == feed["features"].dtype == np.float16
    assert off(run(bundle, feed), reference(sources(family), feed, MAPS, scales)) < 0.05


@pytest.mark.parametrize("dtype, most", [("fp32", 1e-4), ("bf16", 0.1)])
def test_programs_of_torch_give_the_same(sources, tmp_path, dtype, most):
    names = ("edges", "sketch")
    targets = Targets(("onnx", "torch"))
    bundle = exported(sources("sd15"), tmp_path / "bundle", *names, dtype=dtype, targets=targets)
    scales = {"edges": (0.7, 1.0), "sketch": (1.0, 0.5)}
    # Not of a bundle in bfloat16, which this runtime does not compute on a CPU.
    feed = fed(bundle if dtype != "bf16" else exported(sources("sd15"), tmp_path / "wide", *names), MAPS, scales)
    for place, name in enumerate(("hint", "features")):
        program = bundle.network(f"control_{place}").with_suffix(".pt2")
        given = run_program(program, {"rgb": MAPS[names[place]]})[name]
        assert given.dtype == torch.from_numpy(feed[name]).dtype
        assert off(given.float().numpy(), feed[name][:1, 0].astype(np.float32)) < most
    found = run_program(bundle.network("unet").with_suffix(".pt2"), {n: torch.from_numpy(v) for n, v in feed.items()})
    assert off(found["output"].numpy(), reference(sources("sd15"), feed, MAPS, scales)) < most


def test_a_plan_for_a_card_is_built_of_it(sources, tmp_path):
    reason = not_installed(TENSORRT_RTX)
    if reason is not None:
        pytest.skip(reason)
    targets = Targets(("onnx", "tensorrt-rtx"), ("sm89",))
    bundle = exported(sources("sd15"), tmp_path / "bundle", "edges", "sketch", dtype="fp16", steps=1, targets=targets)
    for kind in ("unet", "control_0", "control_1"):
        key = plan_key(TENSORRT_RTX, bundle.network(kind), None, "sm89")
        assert ArtifactCache(bundle.folder / "plans").find(key) is not None, kind


def test_attention_live_loras_and_controls_go_together(lora_bundles, tmp_path):
    from support import lora_bundles as make

    known = Sources(lora_bundles.source, {"edges": write_controlnet(tmp_path / "edges", lora_bundles.source)})
    loras = [make.Lora(path) for path in lora_bundles.files.values()]
    options = {"size": SIZE, "attention": "up", "controls": known.asked("edges")}
    live = exported(known, tmp_path / "live", loras=loras, live=True, **options)
    merged = [make.Lora(lora_bundles.files[name], scale) for name, scale in make.MERGED_AT.items()]
    other = exported(known, tmp_path / "merged", loras=merged, **options)
    feed = fed(live, MAPS, {"edges": (0.7, 0.4)})
    feed["past_weight"] = np.abs(feed["past_weight"]).clip(0, 1)
    feed["own_weight"][:] = 0.5
    feed["lora_scale"][:] = list(make.MERGED_AT.values())
    assert off(run(live, feed), run(other, feed)) < 1e-4
    plain = exported(Sources(lora_bundles.source), tmp_path / "plain")
    zero = {**feed, "past_weight": 0 * feed["past_weight"], "own_weight": np.ones_like(feed["own_weight"])}
    zero |= {"lora_scale": 0 * feed["lora_scale"], "control_scale": 0 * feed["control_scale"]}
    assert np.array_equal(run(live, zero), run(plain, zero))
    assert off(run(live, {**zero, "control_scale": feed["control_scale"]}), run(plain, zero)) > 1e-2


def test_room_is_asked_for_the_new_networks_too(sources, tmp_path, monkeypatch):
    from warpfuse.export.diffusion import bundle as module

    asked = []

    def noted(folder, networks, targets):
        asked.append(sum(parameters for parameters, _ in networks.values()))

    monkeypatch.setattr(module, "check_room", noted)
    for number, names in enumerate(((), ("edges",), ("edges", "sketch"))):
        exported(sources("sd15"), tmp_path / str(number), *names)
    nets = controlnet(sources("sd15").checkpoint), adapter(sources("sd15").checkpoint)
    sizes = [sum(p.numel() for p in net.parameters()) for net in nets]
    assert np.diff(asked).tolist() == sizes


@pytest.mark.parametrize("text", ["edges", "=x", "edges=", "a b=x", "é=x"])
def test_what_is_no_name_and_source_is_one_line(text):
    with pytest.raises(ExportError, match=r"--adapter .*: expected NAME=SOURCE, as in canny=") as caught:
        parse_control(text, "adapter")
    assert "\n" not in str(caught.value)
    assert parse_control("a=b=c:d", "controlnet") == ControlSource("a", "controlnet", "b=c:d")
