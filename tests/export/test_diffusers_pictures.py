"""A picture through the whole graph is the picture of the diffusers pipeline: every family, both reference backends.

Same checkpoint, same noises, the mode of the encoder on both sides, no fusion. A pipeline of N steps and strength s
calls its UNet int(N s) times; the graph is asked for as many steps at the same strength (`diffusion/spacing.py`).
"""

import json
import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.diffusers_calls import draw_ours, picture
from support.random_checkpoint import write_random_checkpoint
from support.recorded import Recorded

from warpfuse.export.diffusion.bundle import Request, export_checkpoint
from warpfuse.export.diffusion.checkpoint import open_checkpoint
from warpfuse.export.diffusion.lora.merging import Lora
from warpfuse.export.diffusion.networks import LCM_GUIDANCE, UNet, VaeDecoder, VaeEncoder, text_network
from warpfuse.graph.pipeline import Pipeline
from warpfuse.graph.plan.config import validate
from warpfuse.graph.runtime.context import prepare
from warpfuse.stages.transfer import download

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # theirs, under NumPy 2
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

WIDTH, HEIGHT, ROWS, SEED = 96, 64, 2, 7
PROMPT, OTHER = "a blue house, Painted in oil 1", "ink"
CLOSE, APART = 1e-3, 1e-2
SD, XL = diffusers.StableDiffusionImg2ImgPipeline, diffusers.StableDiffusionXLImg2ImgPipeline
LCM = diffusers.LatentConsistencyModelImg2ImgPipeline


@dataclass(frozen=True)
class Case:
    """A call of the graph, and the call of the pipeline that does the same."""

    steps: int
    own_steps: int
    guidance: float = 1.0
    negative: str = ""

    @property
    def strength(self):
        return self.steps / self.own_steps

    def keys(self):
        mode = {"guidance": "full" if self.guidance != 1 else "none", "guidance_scale": self.guidance}
        return {
            "steps": self.steps, "strength": self.strength, "negative": self.negative, "stages": {"predict": mode}
        }  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A family: its checkpoint, its pipeline, and which of their calls are compared."""

    family: str
    pipeline: type
    cases: tuple
    solver: str | None = None
    scheduler: type | None = None
    options: dict = field(default_factory=dict)
    prediction: str | None = None


WALKS = (Case(1, 2), Case(2, 2), Case(2, 4), Case(3, 5), Case(4, 4))
GUIDED = (Case(2, 2, 5.0), Case(2, 4, 5.0, OTHER))
ZERO = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
KINDS = {
    # theirs, PNDM, is of many steps
    "sd15": Kind("sd15", SD, (*WALKS, Case(20, 20), *GUIDED), scheduler=diffusers.DDIMScheduler),
    "sd21": Kind("sd21", SD, (*WALKS, *GUIDED)),
    "sd-turbo": Kind("sd-turbo", SD, (Case(1, 1), *WALKS)),
    "sdxl": Kind("sdxl", XL, (*WALKS, *GUIDED)),
    "sdxl-turbo": Kind("sdxl-turbo", XL, (Case(1, 1), *WALKS)),
    "lcm": Kind("lcm", LCM, (Case(1, 1), *WALKS)),
    "sdxl-v": Kind(
        "sdxl", XL, (Case(2, 2), Case(2, 4)), scheduler=diffusers.DDIMScheduler, options=ZERO, prediction="v-ztsnr"
    ),
    "lcm-lora": Kind("sd15", SD, (Case(1, 1), Case(2, 2), Case(4, 8), Case(4, 4)), "lcm", diffusers.LCMScheduler),
}


class Named(torch.nn.Module):
    """A network that takes and returns tensors by name, as an exported program is to."""

    def __init__(self, network, outputs):
        super().__init__()
        self.network, self.outputs = network, outputs

    def forward(self, **inputs):
        found = self.network(**inputs)
        return dict(zip(self.outputs, (found,) if isinstance(found, torch.Tensor) else found, strict=True))


def write_programs(folder, checkpoint, steps):
    """The `.pt2` of every network, beside the ONNX files."""
    text, xl = text_network(checkpoint), checkpoint.family.xl
    tokens = {name: torch.zeros(1, 77, dtype=torch.int64) for name in ("tokens", "tokens_2")[: 1 + xl]}
    with torch.no_grad():
        told = text(*tokens.values())
    told = dict(zip(("context", "pooled"), told if xl else (told,), strict=False))
    rows = {name: tensor.repeat(steps, *[1] * (tensor.ndim - 1)) for name, tensor in told.items()}
    ids = {"time_ids": torch.zeros(steps, 6)} if xl else {}
    latent = torch.zeros(1, 4, HEIGHT // 8, WIDTH // 8)
    noisy = {"x": latent.repeat(steps, 1, 1, 1), "timestep": torch.zeros(steps)}
    for name, network, inputs, outputs in (
        ("text", text, tokens, list(told)),
        ("encoder", VaeEncoder(checkpoint.vae), {"rgb": torch.zeros(1, 3, HEIGHT, WIDTH)}, ["latent"]),
        ("decoder", VaeDecoder(checkpoint.vae), {"latent": latent}, ["rgb"]),
        ("unet", UNet(checkpoint.unet), noisy | rows | ids, ["output"]),
    ):
        with torch.no_grad():
            program = torch.export.export(Named(network, outputs).eval(), (), inputs, strict=False)
        torch.export.save(program, folder / f"{name}.pt2")


@dataclass(frozen=True)
class Made:
    """A bundle, and what the pipeline of its checkpoint shows for each case, float32 [h, w, 3]."""

    bundle: Path
    wanted: dict


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """kind -> `Made`, when first asked for."""
    folder, known = tmp_path_factory.mktemp("pictures"), {}

    def of(name):
        if name not in known:
            kind = KINDS[name]
            source = write_random_checkpoint(folder / name, kind.family)
            loras = [Lora(random_lora(source, folder / f"{name}.safetensors"), 0.5)] if name == "lcm-lora" else []
            with pytest.MonkeyPatch.context() as patch:
                wanted = pictures_of_the_pipeline(kind, source, loras, patch)
            checkpoint = open_checkpoint(str(source), prediction=kind.prediction)
            request = Request((WIDTH, HEIGHT), ROWS, loras=loras, dtype="fp32", solver=kind.solver)
            bundle = export_checkpoint(folder / f"{name}-bundle", checkpoint, request)
            write_programs(bundle.folder, checkpoint, ROWS)  # the LoRA is in it by now
            known[name] = Made(bundle.folder, wanted)
        return known[name]

    return of


LORA_LAYERS = [f"mid_block.attentions.0.transformer_blocks.0.attn{i}.to_{x}" for i in (1, 2) for x in "qkv"]


def random_lora(source, path):
    unet = diffusers.UNet2DConditionModel.from_pretrained(source / "unet", low_cpu_mem_usage=False)
    torch.manual_seed(3)
    pairs = {}
    for layer in LORA_LAYERS:
        out, into = unet.get_submodule(layer).weight.shape
        pairs[f"unet.{layer}.lora_A.weight"] = torch.randn(4, into)
        pairs[f"unet.{layer}.lora_B.weight"] = torch.randn(out, 4)
    save_file(pairs, path)
    return path


def pictures_of_the_pipeline(kind, source, loras, patch):
    """case -> picture, the random numbers replaced by those of our seed."""
    pipe = kind.pipeline.from_pretrained(source, low_cpu_mem_usage=False)
    pipe.set_progress_bar_config(disable=True)
    if kind.scheduler is not None:
        pipe.scheduler = kind.scheduler.from_config(pipe.scheduler.config, clip_sample=False, **kind.options)
    for lora in loras:
        merge(pipe.unet, lora)
    rgb, pictures = torch.from_numpy(picture(1, (WIDTH, HEIGHT))).permute(2, 0, 1)[None] / 255, {}
    for case in kind.cases:
        draw_ours(pipe, SEED, case.steps, (WIDTH, HEIGHT), patch)
        told = {"num_inference_steps": case.own_steps, "guidance_scale": case.guidance}
        if kind.pipeline is LCM:  # it counts the calls it makes
            told = {"num_inference_steps": case.steps, "guidance_scale": LCM_GUIDANCE}
        if case.negative:
            told["negative_prompt"] = case.negative
        pictures[case] = pipe(prompt=PROMPT, image=rgb, strength=case.strength, output_type="np", **told).images[0]
    return pictures


def merge(unet, lora):
    """W + scale B A, by the formula."""
    tensors = load_file(lora.path)
    with torch.no_grad():
        for layer in LORA_LAYERS:
            down, up = (tensors[f"unet.{layer}.lora_{which}.weight"] for which in "AB")
            unet.get_submodule(layer).weight += lora.scale * up @ down


@pytest.fixture
def graph(monkeypatch):
    """(folder, backend, keys) -> (Pipeline, case -> (float picture, uint8 picture)); closed when the test ends."""
    monkeypatch.setattr(download, "Download", Recorded)
    opened = []

    def of(folder, backend, **keys):
        keys = {"bundle": str(folder), "prompt": PROMPT, "fusion": 0.0, "seed": SEED, "backend": backend, **keys}
        pipeline = Pipeline(**keys)
        opened.append(pipeline)

        def shown(case):
            pipeline.update(**case.keys())
            rgb = pipeline.push(picture(1, (WIDTH, HEIGHT)))
            return Recorded.last, rgb

        return shown

    yield of
    for pipeline in opened:
        pipeline.close()


def off(a, b):
    return float(np.abs(a - b).max())


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
@pytest.mark.parametrize("name", KINDS)
def test_the_picture_is_the_pipelines(name, backend, made, graph):
    ours, before = graph(made(name).bundle, backend), None
    for case, wanted in made(name).wanted.items():
        rgb, rounded = ours(case)
        assert off(rgb, wanted) < CLOSE, case
        assert off(rounded.astype(int), np.round(wanted * 255)) <= 1, case
        assert before is None or off(rgb, before) > APART, "the control: the call before was another one"
        before = wanted


@pytest.mark.parametrize(
    "name, case, changes",
    [
        ("sd15", Case(2, 4), {"steps": {"spacing": "trailing"}}),
        ("sd15", Case(2, 4), {"steps": {"end": "clean"}}),
        ("sd21", Case(2, 4), {"steps": {"end": "clean"}}),
        ("sdxl", Case(2, 4), {"steps": {"offset": 20}}),
        ("sdxl", Case(2, 2, 5.0), {"text": {"zeros_for_none": False}}),
        ("sd-turbo", Case(2, 4), {"solver": {"name": "turbo"}}),
        ("sdxl-turbo", Case(2, 4), {"solver": {"name": "euler"}}),
        ("lcm", Case(2, 4), {"steps": {"spacing": "trailing"}}),
        ("lcm-lora", Case(4, 8), {"steps": {"spacing": "even"}}),
    ],
)
def test_control_another_rule_is_another_picture(name, case, changes, made, graph, tmp_path):
    shutil.copytree(made(name).bundle, tmp_path / "other", copy_function=os.link)
    about = json.loads((tmp_path / "other" / "bundle.json").read_text())
    (tmp_path / "other" / "bundle.json").unlink()
    for part, change in changes.items():
        about[part] |= change
    (tmp_path / "other" / "bundle.json").write_text(json.dumps(about))
    assert off(graph(tmp_path / "other", "onnxruntime")(case)[0], made(name).wanted[case]) > APART


@pytest.mark.parametrize("name, steps, idle", [("sd15", 1, True), ("sd15", 2, False), ("lcm", 1, False)])
def test_one_step_that_does_nothing_is_told(name, steps, idle, made):
    lines, config = [], validate({"bundle": str(made(name).bundle), "steps": steps})
    prepare(config, (WIDTH, HEIGHT), lines.append).close()
    assert any("--steps 2 or more" in line for line in lines) == idle


@pytest.mark.parametrize("name", ["sd15", "sdxl", "lcm"])
def test_control_another_noise_is_another_picture(name, made, graph):
    ours = graph(made(name).bundle, "onnxruntime", seed=SEED + 1)
    assert all(off(ours(case)[0], wanted) > APART for case, wanted in made(name).wanted.items())


@pytest.mark.parametrize("name", ["sd15", "sd21", "sdxl"])
def test_control_without_guidance_or_its_negative_prompt_it_is_another_picture(name, made, graph):
    ours, wanted = graph(made(name).bundle, "onnxruntime"), made(name).wanted
    for case in GUIDED:
        assert off(ours(replace(case, guidance=1.0, negative=""))[0], wanted[case]) > APART
        assert off(ours(replace(case, negative="" if case.negative else OTHER))[0], wanted[case]) > APART
