"""Train the UNet and the line block on what the painters make of photographs.

The UNet learns the paint layer without lines, the line block their cover.  What is judged is the paint as it is
decoded, and the whole picture: the paint through the inks of its style, the lines on top.

The later the step, the deeper the paint it is taught: larger areas, richer colour, stronger strokes.

A quarter of every batch are met as the product meets them when it fuses: part of the entry latent is the paint of the
frame before, moved by a fraction of a pixel.  Some start from their own paint, as later steps of several do.  An eighth
are twins: the same crop cut up to seven pixels further on, with the same noise.  Both have to move alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from warpfuse.engine.precision import cpu_flags

from . import checkpoint
from .autoencoder import DOWNSCALE, LATENT_CHANNELS, TinyDecoder, TinyEncoder
from .batches import Painted, painted_crops, shifted, window
from .ink_tables import looked_up, stacked
from .levels import alphas_and_sigmas
from .line_block import CELL, LineBlock
from .losses import composite_loss, cover_loss, grid_loss, paint_loss, unsteadiness
from .painters.colour import hex_rgb
from .plates import Plate
from .schedule import Length, descend, learning_rate
from .strokes import half_size_light
from .styles import STYLES
from .unet import TinyUNet

CROP = 128  # pixels
START_TIMESTEP, LAST_TIMESTEP = 250, 60  # of sampling: little noise, for the clean source is there beside it
DEPTHS = ((107.0, 1.0), (123.0, 0.7), (155.0, 0.4), (250.0, 0.0))  # last timesteps of four to one step, and `depth`
WEIGHTS = {"latent": 1.0, "paint": 3.0, "picture": 4.0, "cover": 4.0, "grid": 2.0, "unsteady": 1.0}
PAST, LATER, TWINS = 4, 6, 8  # one in so many of a batch
SOLVED_BATCHES, RIDGE = 4, 3e-3
CELLS = 8  # of the line block, along a side of the blocks in which a grid is looked for
HALF_FLAGS = {"avx512_bf16", "amx_bf16"}  # without one of them bfloat16 is slower than single precision


@dataclass(frozen=True, slots=True)
class Prints:
    """How a picture is printed in every style: tables [S,3,SIDE,SIDE,SIDE], matched [S]: those that change anything,
    and the inks of the lines [S,3].
    """

    tables: Tensor
    matched: Tensor
    inks: Tensor

    @classmethod
    def of_styles(cls) -> Prints:
        """Of STYLES."""
        matched = torch.tensor([style.inked is not None for style in STYLES])
        return cls(stacked(STYLES), matched, torch.from_numpy(np.stack([hex_rgb(style.ink) for style in STYLES])))

    def __call__(self, paint: Tensor, cover: Tensor, style: Tensor) -> Tensor:
        """paint [n,3,h,w], cover [n,1,h,w], style [n] -> the picture: the paint's inks, and lines on them."""
        chosen = self.matched[style].nonzero()[:, 0]
        inked = paint
        if len(chosen):
            inked = paint.index_copy(0, chosen, looked_up(paint[chosen], self.tables[style[chosen]]))
        return inked + cover * (self.inks[style][:, :, None, None] - inked)


def train(
    unet: TinyUNet,
    block: LineBlock,
    plates: Sequence[Plate],
    encoder: TinyEncoder,
    decoder: TinyDecoder,
    length: Length,
    seed: int,
    keep_at: Path,
    say: Callable[[str], None],
    batch: int = 24,
    peak: float = 1.0e-3,
    solve: bool = True,
) -> tuple[TinyUNet, LineBlock]:
    """Train both on, or take up the training kept at `keep_at`; returns the averages of their weights, for evaluation.

    `encoder` and `decoder` are only looked through: their weights do not change.
    solve  start from the last layer of `unet` that suits best, by least squares: for a network of another task
    """
    unet, block = checkpoint.channels_last(unet.requires_grad_(True)), checkpoint.channels_last(block.train())
    for fixed in (encoder, decoder):
        fixed.eval().requires_grad_(False)
    optimiser = torch.optim.AdamW(
        [*unet.parameters(), *block.parameters()], lr=peak, betas=(0.9, 0.99), weight_decay=1e-4
    )
    averages = checkpoint.average_of(unet), checkpoint.average_of(block)
    parts = {"unet": unet, "lines": block, "optimiser": optimiser}
    parts |= {"unet_average": averages[0], "lines_average": averages[1]}
    step, before = checkpoint.load(keep_at, parts)
    if step == 0:
        solve_light(unet, plates, encoder, batch, seed)
    if step == 0 and solve:
        solve_last_layer(unet, plates, encoder, batch, seed)
    prints, table = Prints.of_styles(), alphas_and_sigmas()
    started = time.monotonic()
    while (progress := length.progress(step, before + time.monotonic() - started)) < 1.0:
        rng = np.random.default_rng([seed, 3, step])
        torch.manual_seed(seed * 1_000_003 + 500_009 + step)
        crops, offset = _crops(plates, batch, batch // TWINS, rng)
        losses = _losses(unet, block, crops, offset, encoder, decoder, prints, table)
        loss = torch.stack([WEIGHTS[name] * loss for name, loss in losses.items()]).sum()
        descend(optimiser, loss, learning_rate(progress, peak), unet.parameters(), block.parameters())
        checkpoint.update_average(averages[0], unet, step, 0.998)
        checkpoint.update_average(averages[1], block, step, 0.998)
        step += 1
        seconds = before + time.monotonic() - started
        if step % 50 == 0 or step <= 2:
            said = " ".join(f"{name} {loss.item():.4f}" for name, loss in losses.items())
            say(f"student step {step} seconds {seconds:.0f} {said}")
        if step % 250 == 0:
            checkpoint.save(keep_at, parts, step, seconds)
    checkpoint.save(keep_at, parts, step, before + time.monotonic() - started)
    return averages[0].eval(), averages[1].eval()


def solve_light(unet: TinyUNet, plates: Sequence[Plate], encoder: TinyEncoder, batch: int, seed: int) -> None:
    """Set how `unet` reads light off a latent, for its strokes: least squares, the inverse of what `encoder` keeps."""
    rng = np.random.default_rng([seed, 9])
    gram = moment = torch.zeros(1, 1, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(SOLVED_BATCHES):
            rgb = painted_crops(plates, batch, CROP, rng).source
            light = nn.functional.conv2d(rgb, half_size_light(), stride=DOWNSCALE)[:, :, 1:-1, 1:-1]
            seen = _patches(encoder(rgb))
            gram = gram + seen.T @ seen
            moment = moment + seen.T @ light.permute(0, 2, 3, 1).flatten(0, 2).double()
        solved = _least_squares(gram, moment)
        unet.light.copy_(solved[:-1].T.reshape(unet.light.shape))


def solve_last_layer(unet: TinyUNet, plates: Sequence[Plate], encoder: TinyEncoder, batch: int, seed: int) -> None:
    """Set the last convolution of `unet` to the least-squares answer, given what the layers before it say."""
    rng = np.random.default_rng([seed, 5])
    torch.manual_seed(seed + 5)
    table, seen = alphas_and_sigmas(), list[Tensor]()
    hook = unet.leave.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    gram = moment = torch.zeros(1, 1, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(SOLVED_BATCHES):
            crops = painted_crops(plates, batch, CROP, rng)
            z, wanted = encoder(torch.cat([crops.source, crops.paint])).chunk(2)
            level = table[[START_TIMESTEP]].expand(batch, 2)
            x = level[:, :1, None, None] * z + level[:, 1:, None, None] * torch.randn_like(z)
            unet(x, z, level, _one_hot(crops.style))
            features = _patches(seen.pop(), padding=1)
            gram = gram + features.T @ features
            moment = moment + features.T @ wanted.permute(0, 2, 3, 1).flatten(0, 2).double()
        solved = _least_squares(gram, moment, RIDGE)
        unet.leave.weight.copy_(solved[:-1].T.reshape(LATENT_CHANNELS, -1, 3, 3))
        assert unet.leave.bias is not None
        unet.leave.bias.copy_(solved[-1])
    hook.remove()


def _patches(x: Tensor, padding: int = 0) -> Tensor:
    """x [n,c,h,w] -> [m,9c+1]: what a 3x3 convolution with a bias sees at every place."""
    seen = nn.functional.unfold(x.contiguous(), 3, padding=padding).transpose(1, 2).flatten(0, 1)
    return torch.cat([seen, torch.ones(len(seen), 1)], 1).double()


def _least_squares(gram: Tensor, moment: Tensor, ridge: float = 1e-6) -> Tensor:
    """ridge  as a share of the mean variance"""
    steadied = gram + ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    solved: Tensor = torch.linalg.solve(steadied, moment)
    return solved.float()


def _crops(plates: Sequence[Plate], count: int, twins: int, rng: np.random.Generator) -> tuple[Painted, Tensor]:
    """(crops, offset_px [twins,2]): new ones, the first of them once more at an offset, then the others."""
    big = painted_crops(plates, count - twins, CROP + DOWNSCALE, rng)
    offset = torch.from_numpy(rng.integers(0, DOWNSCALE, (twins, 2)))
    order = [*range(twins), *range(twins), *range(twins, count - twins)]
    at = torch.zeros(count, 2, dtype=torch.long)
    at[twins : 2 * twins] = offset
    source, paint, deep, cover = (
        window(x[order], at, CROP).contiguous(memory_format=torch.channels_last)
        for x in (big.source, big.paint, big.deep, big.cover)
    )
    return Painted(source, paint, deep, cover, big.style[order]), offset


def _losses(
    unet: TinyUNet,
    block: LineBlock,
    crops: Painted,
    offset: Tensor,
    encoder: TinyEncoder,
    decoder: TinyDecoder,
    prints: Prints,
    table: Tensor,
) -> Mapping[str, Tensor]:
    """What WEIGHTS weigh."""
    style, twins = _one_hot(crops.style), len(offset)
    timestep = _timesteps(len(style), twins)
    wanted_paint = torch.lerp(crops.paint, crops.deep, depth(timestep)[:, None, None, None])
    with torch.no_grad():
        source, target = encoder(torch.cat([crops.source, wanted_paint])).chunk(2)
        x, level = _entry(source, crops.paint, wanted_paint, timestep, encoder, table, twins)
        wanted = prints(wanted_paint, crops.cover, crops.style)
    with torch.autocast("cpu", torch.bfloat16, enabled=bool(HALF_FLAGS & cpu_flags())):
        latent = unet(x, source, level, style)
        paint = decoder(latent.contiguous(memory_format=torch.channels_last))
        cover = block(crops.source, latent.detach().float(), style)
    latent, paint, cover = latent.float(), paint.float(), cover.float()
    picture = prints(paint, cover, crops.style)
    return {
        "latent": (latent - target).abs().mean(),
        "paint": paint_loss(paint, wanted_paint),
        "picture": composite_loss(picture, wanted, crops.source, crops.cover),
        "cover": cover_loss(cover, crops.cover),
        "grid": grid_loss(paint, wanted_paint) + grid_loss(cover, crops.cover, CELL, CELLS),
        "unsteady": unsteadiness(picture[:twins], picture[twins : 2 * twins], offset),
    }


def depth(timestep: Tensor) -> Tensor:
    """0..1: how far towards the deep paint a step at `timestep` goes; 0, 0.4, 0.7 and 1 at the last of one to four."""
    known = torch.tensor(DEPTHS)
    at = timestep.float().clamp(known[0, 0].item(), known[-1, 0].item())
    above = torch.searchsorted(known[:, 0].contiguous(), at).clamp(1, len(known) - 1)
    low, high = known[above - 1], known[above]
    return low[:, 1] + (high[:, 1] - low[:, 1]) * (at - low[:, 0]) / (high[:, 0] - low[:, 0])


def _timesteps(n: int, twins: int) -> Tensor:
    """Half of them the start; twins get that of those they are twins of."""
    drawn = torch.randint(LAST_TIMESTEP - 20, START_TIMESTEP + 50, (n,))
    timestep = torch.where(torch.rand(n) < 0.5, START_TIMESTEP, drawn)
    timestep[twins : 2 * twins] = timestep[:twins]
    return timestep


def _entry(
    source: Tensor, paint: Tensor, wanted: Tensor, timestep: Tensor, encoder: TinyEncoder, table: Tensor, twins: int
) -> tuple[Tensor, Tensor]:
    """(x, level): the noised entry latent; twins get the noise of those they are twins of.

    The last of the batch have part of a past in it, those before them start from the paint of the step before.
    """
    n = source.shape[0]
    past, later = n // PAST, n // LATER
    moved = shifted(wanted[n - past :], 2.0 * torch.rand(past, 2) - 1.0).clamp(0.0, 1.0)
    known = torch.cat([paint[n - past - later : n - past], moved]).contiguous(memory_format=torch.channels_last)
    before = encoder(known)
    clean = source.clone()
    clean[n - past - later : n - past] = before[:later]
    clean[n - past :] = torch.lerp(source[n - past :], before[later:], 0.95 * torch.rand(past, 1, 1, 1))
    level, noise = table[timestep], torch.randn_like(source)
    noise[twins : 2 * twins] = noise[:twins]
    x = level[:, :1, None, None] * clean + level[:, 1:, None, None] * noise
    return x.contiguous(memory_format=torch.channels_last), level


def _one_hot(style: Tensor) -> Tensor:
    return nn.functional.one_hot(style, len(STYLES)).float()
