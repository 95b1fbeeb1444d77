"""A plain re-implementation of StreamDiffusion's algorithm (Kodaira et al. 2023), to be measured beside warpfuse.

It is written from the description of the algorithm, in our own words, and is not StreamDiffusion: how to run that is
told in README.md. The arithmetic is that of its stream batch: N steps of N frames as one network call, one noise
tensor a row drawn once, consistency boundary scalings. What surrounds the arithmetic is what surrounds it there: one
stream, everything in turn, pictures through PIL both ways, float pictures read back, fresh buffers, and the device
synchronised for every frame to time it.

The networks are those of a bundle, opened by the same backend as warpfuse opens them with. Of a bundle that draws
lines, the line network runs too, and the picture is composed by the function of warpfuse: it belongs to the bundle.
"""

import time
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from warpfuse.engine.bundle_file import NetworkName
from warpfuse.engine.contract import Engine
from warpfuse.engine.device import settle
from warpfuse.graph.runtime.context import RunContext
from warpfuse.graph.runtime.engines import shapes_of
from warpfuse.stages.arithmetic import arithmetic
from warpfuse.stages.diffusion.palette import Palette
from warpfuse.stages.formulas.composite import shares_of
from warpfuse.stages.solvers.levels import level_at, levels, zero_terminal

SIGMA_DATA = 0.5
TIMESTEP_SCALING = 10.0


class StreamBatchPeer:
    """`__call__` takes a PIL picture and returns one, N - 1 frames later. Owns its engines; `close` ends them.

    context  bundle, size, backend, prompt and steps: what warpfuse runs with
    """

    def __init__(self, context: RunContext) -> None:
        config, about = context.config, context.bundle.about
        self._size, self._device = context.size, config.device
        self._scale = about.latent.scale
        self._rows = config.steps
        self._encoder, self._unet, self._decoder = (
            self._open(context, kind) for kind in ("encoder", "unet", "decoder")
        )
        self._lines = self._open(context, "lines") if about.printed else None
        self._taken = {spec.name: getattr(torch, spec.dtype) for spec in self._unet.inputs}
        prompt = context.prompts(config.prompt)
        self._style, self._strength = prompt.given, config.strength
        self._prompt = {
            name: tensor.repeat(self._rows, *[1] * (tensor.dim() - 1)) for name, tensor in prompt.given.items()
        }
        if self._lines is not None:
            self._ink_in(prompt.palette)
        schedule = about.levels
        table = levels(schedule.schedule, schedule.beta_start, schedule.beta_end, schedule.train_timesteps)
        table = zero_terminal(table) if schedule.zero_terminal_snr else table
        top, floor = about.steps.top, max(about.steps.floor, 1.0)
        timesteps = np.linspace(top, floor, self._rows + 1)[:-1]
        at = [level_at(table, float(t)) for t in timesteps]
        self._alpha = self._column([one.alpha for one in at])
        self._sigma = self._column([one.sigma for one in at])
        self._timesteps = torch.tensor(timesteps, dtype=torch.float32, device=self._device)
        scaled = TIMESTEP_SCALING * timesteps
        self._c_skip = self._column(SIGMA_DATA**2 / (scaled**2 + SIGMA_DATA**2))
        self._c_out = self._column(scaled / np.sqrt(scaled**2 + SIGMA_DATA**2))
        self._prediction = about.prediction
        shape = (self._rows, about.latent.channels, self._size[1] // about.latent.downscale,
                 self._size[0] // about.latent.downscale)  # fmt: skip
        self._noise = torch.randn(shape, generator=torch.Generator().manual_seed(config.seed)).to(self._device)
        self._buffer = torch.zeros_like(self._noise[1:])
        self._sources = torch.zeros_like(self._noise[1:])
        self.seconds: list[float] = []

    def __call__(self, picture: Image.Image) -> Image.Image:
        """One frame."""
        settle(self._device)
        begun = time.perf_counter()
        x = self._preprocess(picture)
        z = self._encoder({"rgb": x})["latent"].clone() * self._scale
        entered = self._alpha[:1] * z + self._sigma[:1] * self._noise[:1]
        rows, sources = torch.cat((entered, self._buffer)), torch.cat((z, self._sources))
        output = self._unet(self._feed(rows, sources))["output"].clone()
        x0 = self._c_out * self._clean(rows, output) + self._c_skip * rows
        self._buffer = self._alpha[1:] * x0[:-1] + self._sigma[1:] * self._noise[1:]
        self._sources = sources[:-1].clone()
        rgb = self._decoder({"latent": x0[-1:] / self._scale})["rgb"].clone()
        out = self._postprocess(rgb if self._lines is None else self._printed(rgb, x, x0[-1:] / self._scale))
        settle(self._device)
        self.seconds.append(time.perf_counter() - begun)
        return out

    def close(self) -> None:
        """Close the networks."""
        for engine in (self._encoder, self._unet, self._decoder, self._lines):
            if engine is not None:
                engine.close()

    def _ink_in(self, palette: Palette | None) -> None:
        assert palette is not None, "a bundle that draws lines has styles"
        self._shares = shares_of(palette.ink, palette.lines, self._strength).to(self._device)
        self._table = None if palette.table is None else torch.from_numpy(palette.table.copy()).to(self._device)

    def _printed(self, paint: Tensor, source: Tensor, latent: Tensor) -> Tensor:
        assert self._lines is not None
        cover = self._lines({"rgb": source, "latent": latent, "style": self._style["style"]})["cover"].clone()
        return arithmetic(paint.device).composed(paint, cover, self._table, self._shares)

    def _feed(self, rows: Tensor, sources: Tensor) -> dict[str, Tensor]:
        offered: dict[str, Tensor] = {
            "x": rows,
            "source": sources,
            "timestep": self._timesteps,
            "level": torch.cat((self._alpha, self._sigma), dim=1).flatten(1),
            **self._prompt,
        }
        return {name: offered[name].to(dtype) for name, dtype in self._taken.items()}

    def _clean(self, rows: Tensor, output: Tensor) -> Tensor:
        match self._prediction:
            case "epsilon":
                return (rows - self._sigma * output) / self._alpha
            case "v":
                return self._alpha * rows - self._sigma * output
            case _:
                return output

    def _preprocess(self, picture: Image.Image) -> Tensor:
        resized = picture.resize(self._size, Image.Resampling.LANCZOS)
        pixels = torch.from_numpy(np.array(resized).astype(np.float32) / 255.0)
        return pixels.permute(2, 0, 1)[None].contiguous().to(self._device)

    def _postprocess(self, rgb: Tensor) -> Image.Image:
        pixels = rgb.clamp(0, 1).detach().cpu().permute(0, 2, 3, 1).float().numpy()
        return Image.fromarray((pixels[0] * 255).round().astype("uint8"))

    def _column(self, values: Any) -> Tensor:
        return torch.tensor(np.asarray(values), dtype=torch.float32, device=self._device).reshape(-1, 1, 1, 1)

    def _open(self, context: RunContext, kind: NetworkName) -> Engine:
        shapes = shapes_of(context.bundle.about, kind, context.size, self._rows, self._device)
        return context.engines.open(context.bundle.network(kind), shapes)
