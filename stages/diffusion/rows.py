"""Rows: frames on their way through the sampler, each at its own place in its own plan.

A row holds everything that belongs to its frame alone: latent, settings, reference, motion, what its solver remembers.
So rows of different frames, prompts, strengths and streams can share one network call, and a change or a cut concerns
the frames it belongs to and no other.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from warpfuse.stages.arithmetic import Arithmetic
from warpfuse.stages.diffusion.attention import TokenPast
from warpfuse.stages.diffusion.fuse import fusion_weight, largest_weight, warped
from warpfuse.stages.diffusion.noise import Noises, after_call, at_entry, in_window
from warpfuse.stages.diffusion.schedule import Program
from warpfuse.stages.frame import Frame, Latent, Motion, Stamp
from warpfuse.stages.parameters import Mode
from warpfuse.stages.solvers.pair import CLEAN, compose, fuse
from warpfuse.stages.solvers.solver import Memory

Pull = Callable[[Sequence[Tensor], Sequence[Motion], Mode], Sequence[Tensor]]
"""(x0 of frames before, motion of these, how to read between pixels) -> each x0 pulled onto its frame, all
[1, c, h, w]."""


@dataclass(slots=True, eq=False)
class Row:
    """One frame in the sampler. Made by `enter`, moved by `stream_batch.advance`, its result is `x` when `finished`.

    source     clean latent z of the frame, [1, c, h, w]
    x          the latent at the level of call k; after the last call the predicted x0, or next to it (`Sampling.end`)
    program    the settings the frame came with
    noises     of its stream
    reference  the latent of the newest styled picture, pulled onto this frame, and its trust; or nothing
    motion     flow (pixels) to the frame before and its trust at each latent cell; None where nothing needs it
    before     the row of the frame before in the same stream, while this one needs it
    past       tokens of earlier frames, where the bundle has attention
    hints      what the UNet takes of control maps, [1, ...], where the bundle has controls
    k, step    calls made, steps finished
    memory     of the solver inside a step
    assumed    x0 that counts as unconditional, for residual guidance
    x0         predicted x0 after each call so far, with what was fused into it; None where it is not kept
    """

    stamp: Stamp
    source: Tensor
    x: Tensor
    program: Program
    noises: Noises
    reference: Frame | None = None
    motion: Motion | None = None
    before: "Row | None" = None
    past: TokenPast | None = None
    hints: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    k: int = 0
    step: int = 0
    memory: Memory = ()
    assumed: Tensor | None = None
    x0: list[Tensor | None] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """Every call has been made."""
        return self.k == len(self.program.plan)


def enter(row_of: Latent, program: Program, noises: Noises, reference: Frame | None, ops: Arithmetic) -> Row:
    """The row of a frame at the level its sampling starts from, with the reference fused in (entry fusion).

    x = alpha [w z_ref + (1 - w) z] + sigma [w n_ref + r z_0]

    z_ref is the reference locked to the source (`lock_to_source`), unless the settings leave it as it is.
    """
    z = row_of.z
    n = noises.slot(0, z.shape)
    settings, level = program.fuse, program.start
    row = Row(row_of.stamp, z, z, program, noises, reference)
    past = warped(reference)
    if settings.entry and past is not None and in_window(settings.window, level):
        n_ref, rho = at_entry(settings.noise, noises, row_of.stamp.seq, z.shape)
        (z_ref, trust), weight = past, largest_weight(settings) * settings.entry
        if settings.anchor.entry:
            z_ref = ops.lock_to_source(z_ref, z)
        row.x = fuse(z, n, z_ref, n_ref, trust * weight, rho, level, settings.inner_strength)
    else:
        row.x = compose(z, n, level)
    return row


def move(row: Row, pair: tuple[Tensor, Tensor], pulled: Tensor | None) -> None:
    """Take a row from its call to the next, given what the network said there.

    pair    (x0, n) of `row.x`, guided
    pulled  x0 of the frame before after the same call, pulled onto this frame; None where nothing is fused from there
    """
    call = row.program.plan[row.k]
    row.step += call.finished
    z = row.noises.slot(row.step, row.x.shape) if call.needs_noise else None
    x0, n, row.memory = call.advance(row.x, *pair, z, row.memory)
    settings = row.program.fuse
    keeps = settings.between in ("latent", "picture") and row.k + 1 < len(row.program.plan)
    if not wants_between(row):
        row.x = compose(x0, n, call.level_next)
        row.x0.append(x0.clone() if keeps else None)  # it may be the engine's own
    else:
        x0_ref, trust = _between(row, pulled)
        w = fusion_weight(settings, trust)
        n_ref, rho = after_call(settings.noise, row.noises, row.stamp.seq, row.step, call, n)
        row.x = fuse(x0, n, x0_ref, n_ref, w, rho, call.level_next, settings.inner_strength)
        row.x0.append(fuse(x0, None, x0_ref, None, w, 0.0, CLEAN) if keeps else None)
    row.k += 1
    if row.finished:
        row.before = None  # the chain of frames ends here: memory does not grow with the stream
        if row.past is not None:
            row.past.end()


def wants_between(row: Row) -> bool:
    """Whether something is fused in after the call the row is at: asked for, in the window, and there."""
    settings, call = row.program.fuse, row.program.plan[row.k]
    if settings.between == "off" or not call.finished or row.k + 1 == len(row.program.plan):
        return False
    if not in_window(settings.window, call.level):
        return False
    if settings.between == "reference":
        return warped(row.reference) is not None
    return past_of(row) is not None


def past_of(row: Row) -> Tensor | None:
    """x0 of the frame before after the call the row is at: the same place in the plan, so the same level."""
    before = row.before
    if before is None or row.motion is None or row.stamp.discontinuity:
        return None
    if len(before.program.plan) != len(row.program.plan) or len(before.x0) <= row.k:
        return None
    return before.x0[row.k]


def _between(row: Row, pulled: Tensor | None) -> tuple[Tensor, Tensor]:
    if pulled is None:
        past = warped(row.reference)
        assert past is not None
        return past
    assert row.motion is not None
    return pulled, row.motion.trust
