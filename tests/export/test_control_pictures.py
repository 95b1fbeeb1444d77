"""With controls the picture of the graph is that of diffusers' ControlNet img2img pipelines of SD and SDXL.

The map is handed in as a picture, so that both are steered by the same one.
"""

from dataclasses import dataclass
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from support.diffusers_calls import draw_ours, picture
from support.random_checkpoint import write_random_checkpoint
from support.random_controls import controlnet
from support.recorded import Recorded

from warpfuse.export.diffusion.bundle import Request, export_checkpoint
from warpfuse.export.diffusion.checkpoint import open_checkpoint
from warpfuse.export.diffusion.control_files import ControlSource
from warpfuse.graph.pipeline import Pipeline
from warpfuse.stages.transfer import download

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # theirs, under NumPy 2
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

SIZE, ROWS, SEED = (96, 64), 2, 7
PROMPT, OTHER = "a blue house, Painted in oil 1", "ink"
CLOSE, APART = 1e-3, 1e-2
PIPELINES = {
    "sd15": diffusers.StableDiffusionControlNetImg2ImgPipeline,
    "sdxl": diffusers.StableDiffusionXLControlNetImg2ImgPipeline,
}
SCALES = {"edges": 0.8, "depth": 0.5}
CASES = [(2, 2, 1.0, ""), (2, 4, 1.0, ""), (2, 4, 5.0, OTHER)]  # our steps, theirs, guidance, negative prompt


@dataclass(frozen=True)
class Made:
    """A bundle with two ControlNets, its checkpoint, and files of the maps."""

    family: str
    source: Path
    bundle: Path
    maps: dict

    def rgb(self, name):
        return torch.from_numpy(np.array(Image.open(self.maps[name]))).permute(2, 0, 1)[None] / 255


NETS = {"edges": 1, "depth": 3}  # seeds


@pytest.fixture(scope="module", params=sorted(PIPELINES))
def made(request, tmp_path_factory):
    folder, family = tmp_path_factory.mktemp("steered"), request.param
    source = write_random_checkpoint(folder / family, family)
    asked = []
    for name, seed in NETS.items():
        controlnet(source, seed).save_pretrained(folder / name)
        asked.append(ControlSource(name, "controlnet", str(folder / name)))
    maps = {name: folder / f"{name}.png" for name in NETS}
    for name, path in maps.items():
        Image.fromarray(picture(10 + NETS[name], SIZE)).save(path)
    request = Request(SIZE, ROWS, dtype="fp32", controls=asked)
    bundle = export_checkpoint(folder / "bundle", open_checkpoint(str(source)), request)
    return Made(family, source, bundle.folder, maps)


def of_the_pipeline(made, names, case, monkeypatch):
    """float32 [h, w, 3], the random numbers replaced by those of our seed."""
    steps, own_steps, guidance, negative = case
    nets = [controlnet(made.source, NETS[name]) for name in names]
    pipe = PIPELINES[made.family].from_pretrained(
        made.source, controlnet=nets[0] if len(nets) == 1 else nets, low_cpu_mem_usage=False
    )
    pipe.set_progress_bar_config(disable=True)
    if made.family == "sd15":  # theirs, PNDM, is of many steps
        pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    draw_ours(pipe, SEED, steps, SIZE, monkeypatch)
    told = {"negative_prompt": negative} if negative else {}
    maps, scales = [made.rgb(name) for name in names], [SCALES[name] for name in names]
    return pipe(
        prompt=PROMPT, image=torch.from_numpy(picture(1, SIZE)).permute(2, 0, 1)[None] / 255,
        control_image=maps if len(maps) > 1 else maps[0],
        controlnet_conditioning_scale=scales if len(maps) > 1 else scales[0],
        num_inference_steps=own_steps, strength=steps / own_steps, guidance_scale=guidance, output_type="np", **told,
    ).images[0]  # fmt: skip


def of_the_graph(made, scales, case, monkeypatch):
    """The same of ours. scales: of the controls of the run."""
    monkeypatch.setattr(download, "Download", Recorded)
    steps, own_steps, guidance, negative = case
    controls = {
        name: {"kind": "image", "picture": str(made.maps[name]), "scale": scale} for name, scale in scales.items()
    }
    mode = {"guidance": "full" if guidance != 1 else "none", "guidance_scale": guidance}
    with Pipeline(
        bundle=str(made.bundle), prompt=PROMPT, fusion=0.0, seed=SEED, backend="onnxruntime", steps=steps,
        strength=steps / own_steps, negative=negative, stages={"predict": mode}, controls=controls,
    ) as pipeline:  # fmt: skip
        pipeline.push(picture(1, SIZE))
    return Recorded.last


def off(a, b):
    return float(np.abs(a - b).max())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("names", [("edges",), ("edges", "depth")], ids="+".join)
def test_the_picture_is_the_pipelines(made, names, case, monkeypatch):
    with monkeypatch.context() as patch:
        wanted = of_the_pipeline(made, names, case, patch)
    scales = {name: SCALES[name] for name in names}
    assert off(of_the_graph(made, scales, case, monkeypatch), wanted) < CLOSE
    assert off(of_the_graph(made, dict.fromkeys(names, 0.0), case, monkeypatch), wanted) > APART, "the control: at 0"
