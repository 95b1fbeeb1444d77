"""Rows: frames in the sampler, each at its own call of its own schedule.

A row holds all state of its frame: latent, settings, reference, motion and the memory of the solver. So rows of
different frames, prompts, strengths and streams can share one network call. A change of settings or a cut affects only
the rows of its frames.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from warpfuse.stages.arithmetic import Arithmetic
from warpfuse.stages.diffusion.adain import adain
from warpfuse.stages.diffusion.anchor_past import AnchorPast
from warpfuse.stages.diffusion.attention import TokenPast
from warpfuse.stages.diffusion.deep import DeepPast
from warpfuse.stages.diffusion.fuse import warped
from warpfuse.stages.diffusion.noise import FusedNoise, Noises, at_entry, in_window
from warpfuse.stages.diffusion.schedule import FrameSchedule
from warpfuse.stages.diffusion.settings import W_MAX, FusionWindow, Kind
from warpfuse.stages.frame import Frame, Latent, Motion, Stamp
from warpfuse.stages.parameters import Mode
from warpfuse.stages.solvers.levels import CLEAN
from warpfuse.stages.solvers.pair import compose, fuse
from warpfuse.stages.solvers.solver import Memory
from warpfuse.stages.state_tree import Fields

WarpRows = Callable[[Sequence[Tensor], Sequence[Motion], Mode], Sequence[Tensor]]
"""(x0 of earlier frames, motions to them, interpolation) -> each x0 warped onto the present frame, all [1, c, h, w]."""


@dataclass(slots=True, eq=False)
class Row(Fields):
    """One frame in the sampler. `start` makes it and `stream_batch.step_all` advances it. If `finished`, `x` is the
    result.

    stamp      of the frame
    source     clean latent z of the frame, [1, c, h, w]
    x          the latent at the level of call k; after the last call the predicted x0 (at the level `Sampling.end`)
    schedule   schedule for the settings of the frame
    noises     noises of its stream
    reference  latent of the newest styled picture, warped onto this frame, and its trust; None or bare: none
    motion     flow (px) to the frame before and its trust for each latent cell; None: not needed
    before     row of the frame before in the same stream, as long as it is needed
    past       tokens of earlier frames; None: the bundle has no attention
    deep       deep features of earlier frames; None: the whole UNet runs for every frame
    hints      hints of control maps by input name, [1, ...]; empty: the bundle has no controls
    anchor     anchor of the shot; None: not used
    k, step    number of calls made, of steps finished
    memory     memory of the solver within a step
    assumed    x0 that residual guidance takes as unconditional
    x0         after each call so far the predicted x0 with fusion; None: not kept
    """

    stamp: Stamp
    source: Tensor
    x: Tensor
    schedule: FrameSchedule
    noises: Noises
    reference: Frame | None = None
    motion: Motion | None = None
    before: "Row | None" = None
    past: TokenPast | None = None
    deep: DeepPast | None = None
    hints: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    anchor: AnchorPast | None = None
    k: int = 0
    step: int = 0
    memory: Memory = ()
    assumed: Tensor | None = None
    x0: list[Tensor | None] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """Every call has been made."""
        return self.k == len(self.schedule.plan)


def start(row_of: Latent, schedule: FrameSchedule, noises: Noises, reference: Frame | None, ops: Arithmetic) -> Row:
    """The row of a frame at its first level, with the reference fused in (entry fusion).

        x = alpha [w z_ref + (1 - w) z] + sigma [w n_ref + r z_0]

    z_ref is the reference with the statistics of the source (`lock_to_source`) if `stages.fuse.anchor.entry` is on.
    """
    z = row_of.z
    n = noises.slot(0, z.shape)
    settings, level = schedule.fuse, schedule.start
    row = Row(row_of.stamp, z, z, schedule, noises, reference)
    past = warped(reference)
    if settings.entry and past is not None and in_window(settings.window, level):
        n_ref, rho = at_entry(settings.noise, noises, row_of.stamp.seq, z.shape)
        z_ref, trust = past
        numbers = rho, level.alpha, level.sigma, settings.inner_strength
        row.x = ops.fuse_at_entry(z, n, z_ref, n_ref, trust, schedule.entry, *numbers, settings.anchor.entry)
    else:
        row.x = compose(z, n, level)
    return row


class Reference(NamedTuple):
    """A latent that is fused into a row between steps.

    window  settings of this fusion
    x0      [1, c, h, w]
    trust   [1, 1, h, w], in coordinates of the row's frame
    motion  motion along which x0 has to be warped onto the row's frame; None: it is warped already
    """

    window: FusionWindow
    x0: Tensor
    trust: Tensor
    motion: Motion | None = None

    @property
    def pull(self) -> Kind:
        """How it is warped: as a latent or as a picture."""
        return "latent" if self.window.kind == "latent" else "picture"


def step(row: Row, pair: tuple[Tensor, Tensor], references: Sequence[Reference]) -> None:
    """Advance a row by one call, given the output of the network for it.

    pair        guided (x0, n) of `row.x`
    references  fused in after the call, in this order; each warped onto the row's frame
    """
    call = row.schedule.plan[row.k]
    row.step += call.finished
    z = row.noises.slot(row.step, row.x.shape) if call.needs_noise else None
    x0, n, row.memory = call.advance(row.x, *pair, z, row.memory)
    x0 = _with_statistics(row, x0)
    noise = FusedNoise(call, n)
    for window, x0_ref, trust, _ in references:
        w = trust * _largest(window)
        x0 = fuse(x0, None, x0_ref, None, w, 0.0, CLEAN)
        noise.take(window.noise, row.noises, row.stamp.seq, row.step, w, window.inner_strength)
    row.x = compose(x0, noise.n, call.level_next)
    keeps = row.schedule.pulls_before and row.k + 1 < len(row.schedule.plan)
    row.x0.append(x0.clone() if keeps else None)  # it may be the engine's own
    if row.anchor is not None:
        row.anchor.leave(row.k, x0)
    row.k += 1
    if row.finished:
        row.before = row.anchor = None  # otherwise every row would keep all earlier ones alive
        row.reference = row.motion = None
        if row.past is not None:
            row.past.end()


def references_of(row: Row) -> list[Reference]:
    """The references to fuse after the row's present call, before warping: those whose window has this level and that
    exist."""
    call, plan = row.schedule.plan[row.k], row.schedule.plan
    if not call.finished or row.k + 1 == len(plan):
        return []
    due = [window for window in row.schedule.windows if in_window(window.window, call.level)]
    found = [(_of_anchor if window.of == "anchor" else _of_previous)(row, window) for window in due]
    return [reference for reference in found if reference is not None]


def past_of(row: Row) -> Tensor | None:
    """x0 of the frame before after the same call k, so at the same level; None if there is none."""
    before = row.before
    if before is None or row.motion is None or row.stamp.discontinuity:
        return None
    if len(before.schedule.plan) != len(row.schedule.plan) or len(before.x0) <= row.k:
        return None
    return before.x0[row.k]


def _of_previous(row: Row, window: FusionWindow) -> Reference | None:
    if window.kind == "reference":
        shown = warped(row.reference)
        return None if shown is None else Reference(window, *shown)
    x0 = past_of(row)
    return None if x0 is None or row.motion is None else Reference(window, x0, row.motion.trust, row.motion)


def _of_anchor(row: Row, window: FusionWindow) -> Reference | None:
    anchor = row.anchor
    if anchor is None:
        return None
    if window.kind == "reference" and anchor.shown is not None:
        return Reference(window, anchor.shown, anchor.motion.trust)
    x0 = anchor.x0.get(len(row.schedule.plan) - 1 if window.kind == "reference" else row.k)
    return None if x0 is None else Reference(window, x0, anchor.motion.trust, anchor.motion)


def _largest(window: FusionWindow) -> float:
    """The weight of a window, limited to `W_MAX` for the frame before. The anchor is not made from itself, so errors do
    not accumulate in it and its weight may be 1."""
    return window.weight if window.of == "anchor" else min(window.weight, W_MAX)


def _with_statistics(row: Row, x0: Tensor) -> Tensor:
    """x0 with the anchor's mean and contrast by AdaIN, if the settings say so."""
    call, settings = row.schedule.plan[row.k], row.schedule.fuse.adain
    if row.anchor is None or not settings.weight or not call.finished or not in_window(settings.window, call.level):
        return x0
    x0_anchor = row.anchor.x0.get(row.k)
    return x0 if x0_anchor is None else adain(x0, x0_anchor, settings.weight * row.anchor.known)
