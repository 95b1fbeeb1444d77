"""With style images the picture of the graph is that of diffusers' IP-Adapter img2img pipelines of SD and SDXL.

The picture of a style has the encoder's own size, so that both see the same pixels; of the turbo checkpoints a
ControlNet steers as well. How pictures of other sizes are made to fit is compared apart.
"""

from dataclasses import dataclass
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from support.diffusers_calls import draw_ours, picture
from support.random_checkpoint import write_random_checkpoint
from support.random_controls import controlnet
from support.random_images import ENCODER, write_adapter
from support.recorded import Recorded

from warpfuse.export.diffusion.bundle import Request, export_checkpoint
from warpfuse.export.diffusion.checkpoint import open_checkpoint
from warpfuse.export.diffusion.control_files import ControlSource
from warpfuse.export.diffusion.image_files import ImageSource
from warpfuse.graph.pipeline import Pipeline
from warpfuse.stages.diffusion.image_tokens import squared
from warpfuse.stages.transfer import download

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # theirs, under NumPy 2
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

SIZE, ROWS, SEED = (96, 64), 2, 7
PROMPT, OTHER = "a blue house, Painted in oil 1", "ink"
CLOSE, APART = 1e-3, 1e-2
KINDS = {"look": ("plain", 6), "mood": ("plus", 8)}  # name -> kind, seed
SCALES = {"look": 0.8, "mood": 0.5}


@dataclass(frozen=True)
class Family:
    """A pipeline of diffusers, which of its calls are compared, and whether a ControlNet steers it."""

    pipeline: type
    cases: tuple
    steered: bool = False


CASES = ((2, 4, 1.0, ""), (2, 2, 5.0, ""), (2, 4, 5.0, OTHER))  # our steps, theirs, guidance, negative prompt
FAMILIES = {
    "sd15": Family(diffusers.StableDiffusionImg2ImgPipeline, CASES),
    "sdxl": Family(diffusers.StableDiffusionXLImg2ImgPipeline, CASES),
    "sd-turbo": Family(diffusers.StableDiffusionControlNetImg2ImgPipeline, ((1, 1, 1.0, ""), CASES[0]), True),
    "sdxl-turbo": Family(diffusers.StableDiffusionXLControlNetImg2ImgPipeline, ((1, 1, 1.0, ""), CASES[0]), True),
}


@dataclass(frozen=True)
class Made:
    """A bundle, its checkpoint, the adapters, and the pictures of the styles and of the control."""

    family: str
    source: Path
    bundle: Path
    adapters: dict
    pictures: dict


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def made(request, tmp_path_factory):
    folder, family = tmp_path_factory.mktemp("shown"), request.param
    source = write_random_checkpoint(folder / family, family)
    adapters = {name: write_adapter(folder / name, source, *KINDS[name]) for name in KINDS}
    pictures = {name: folder / f"{name}.png" for name in (*KINDS, "edges")}
    for seed, (name, path) in enumerate(pictures.items()):
        size = SIZE if name == "edges" else (ENCODER["image_size"],) * 2
        Image.fromarray(picture(10 + seed, size)).save(path)
    controls = []
    if FAMILIES[family].steered:
        controlnet(source, 1).save_pretrained(folder / "edges")
        controls.append(ControlSource("edges", "controlnet", str(folder / "edges")))
    asked = Request(
        SIZE, ROWS, dtype="fp32", controls=controls,
        images=[ImageSource(name, str(file)) for name, file in adapters.items()],
    )  # fmt: skip
    bundle = export_checkpoint(folder / "bundle", open_checkpoint(str(source)), asked)
    return Made(family, source, bundle.folder, adapters, pictures)


def of_the_pipeline(made, names, case, monkeypatch):
    """float32 [h, w, 3], the random numbers replaced by those of our seed."""
    steps, own_steps, guidance, negative = case
    family = FAMILIES[made.family]
    given = {"controlnet": controlnet(made.source, 1)} if family.steered else {}
    pipe = family.pipeline.from_pretrained(made.source, low_cpu_mem_usage=False, **given)
    folders = [str(made.adapters[name].parent) for name in names]
    pipe.load_ip_adapter(
        folders, subfolder=[""] * len(names), weight_name=[made.adapters[name].name for name in names],
        image_encoder_folder="image_encoder", low_cpu_mem_usage=False,
    )  # fmt: skip
    pipe.set_ip_adapter_scale([SCALES[name] for name in names])
    pipe.set_progress_bar_config(disable=True)
    if made.family == "sd15":  # theirs, PNDM, is of many steps
        pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    draw_ours(pipe, SEED, steps, SIZE, monkeypatch)
    told = {"negative_prompt": negative} if negative else {}
    if family.steered:
        rgb = torch.from_numpy(np.array(Image.open(made.pictures["edges"]))).permute(2, 0, 1)[None] / 255
        told |= {"control_image": rgb, "controlnet_conditioning_scale": 0.7}
    return pipe(
        prompt=PROMPT, image=torch.from_numpy(picture(1, SIZE)).permute(2, 0, 1)[None] / 255,
        ip_adapter_image=[Image.open(made.pictures[name]) for name in names], num_inference_steps=own_steps,
        strength=steps / own_steps, guidance_scale=guidance, output_type="np", **told,
    ).images[0]  # fmt: skip


def of_the_graph(made, scales, case, monkeypatch):
    """The same of ours. scales: of the images of the run."""
    monkeypatch.setattr(download, "Download", Recorded)
    steps, own_steps, guidance, negative = case
    images = {name: {"picture": str(made.pictures[name]), "scale": scale} for name, scale in scales.items()}
    edges = {"edges": {"kind": "image", "picture": str(made.pictures["edges"]), "scale": 0.7}}
    mode = {"guidance": "full" if guidance != 1 else "none", "guidance_scale": guidance}
    with Pipeline(
        bundle=str(made.bundle), prompt=PROMPT, fusion=0.0, seed=SEED, backend="onnxruntime", steps=steps,
        strength=steps / own_steps, negative=negative, stages={"predict": mode}, images=images,
        controls=edges if FAMILIES[made.family].steered else {},
    ) as pipeline:  # fmt: skip
        pipeline.push(picture(1, SIZE))
    return Recorded.last


def off(a, b):
    return float(np.abs(a - b).max())


@pytest.mark.parametrize("names", [("look",), ("look", "mood")], ids="+".join)
def test_the_picture_is_the_pipelines(made, names, monkeypatch):
    for case in FAMILIES[made.family].cases:
        with monkeypatch.context() as patch:
            wanted = of_the_pipeline(made, names, case, patch)
        scales = {name: SCALES[name] for name in names}
        assert off(of_the_graph(made, scales, case, monkeypatch), wanted) < CLOSE, case
        zero = of_the_graph(made, dict.fromkeys(names, 0.0), case, monkeypatch)
        assert off(zero, wanted) > APART, f"the control: {case} at 0"


@pytest.mark.parametrize("size", [(200, 120), (90, 301), (56, 56), (31, 40)])
def test_a_picture_is_made_to_fit_as_clip_does(size):
    """Its own preprocessing scales in bytes or in floats, by its version: at most a level or two between."""
    side = ENCODER["image_size"]
    shown = Image.fromarray(picture(3, size))
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}, do_normalize=False
    )
    wanted = np.asarray(processor(shown, return_tensors="np").pixel_values[0]).transpose(1, 2, 0)
    found = np.asarray(squared(shown, side)) / 255
    assert found.shape == wanted.shape == (side, side, 3)
    assert off(found, wanted) < 2e-2
    assert off(found[:, ::-1], wanted) > 0.1, "the control: mirrored"
