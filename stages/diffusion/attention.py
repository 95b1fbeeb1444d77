"""Cross-frame attention: the tokens of earlier frames for the network call of a row, and the tokens that it returns.

A bundle exported with `--attention` has a UNet whose self-attention also attends to tokens of earlier frames, each with
a weight (`engine.bundle_parts.AttentionMemory`). They are from the same call of the sampler, so of the same noise
level. There are two references:

    anchor    the first frame of the shot, or the newest frame that replaced it
    previous  the frame before. Attention ignores positions, so warping these tokens changes nothing by itself. It
              aligns them with the trust of this frame, which is their weight

Tokens of call k are read by call k of the next frame of the stream, and by no other row. In a stream batch that call is
made one step later, so frames have the same past with a stream batch and without.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from warpfuse.engine.bundle_parts import AttentionMemory
from warpfuse.engine.contract import TensorSpec
from warpfuse.engine.errors import BundleError
from warpfuse.stages.arithmetic import Arithmetic, arithmetic
from warpfuse.stages.diffusion.settings import AttentionSettings
from warpfuse.stages.frame import Stamp
from warpfuse.stages.state_tree import Fields


def check_memory(inputs: tuple[TensorSpec, ...], about: AttentionMemory | None) -> None:
    """Raise BundleError unless the UNet's input `past` has the references that its bundle lists."""
    spec = next((spec for spec in inputs if spec.name == "past"), None)
    given = None if spec is None else spec.shape[1:]
    wanted = None if about is None else (about.references, about.numbers)
    if given != wanted:
        found = "missing" if given is None else f"[rows, {', '.join(str(n or '?') for n in given)}]"
        expected = "none" if wanted is None else f"[rows, {wanted[0]}, {wanted[1]}]"
        raise BundleError(f"unet: 'past' is {found}, by the bundle expected is {expected}. Export the bundle again")


Key = tuple[int, bool]
"""A pass of the network for a frame: the number of the call, and whether it is the unconditional pass of guidance."""

Places = Mapping[tuple[int, int], Tensor]
"""For layers of [rows, columns] tokens: the index of each token's counterpart in the frame before, int64."""


@dataclass(slots=True, eq=False)
class TokenPast(Fields):
    """Tokens of earlier frames for one row, and the row's own tokens for later frames.

    nothing  [1, F] zeros, for a missing reference
    anchors  tokens of the anchor, shared by the rows of the shot; or of a keyframe
    before   the past of the frame before, until all its tokens are read; None: no frame before
    trust    [1, 1, h, w]: weight of the frame before; None: 1
    places   where the tokens of the frame before are; None: they are not warped
    known    [1] 1 if this frame continues the shot, 0 if it begins one; on the device; None: it continues it
    painted  the anchors are tokens of a keyframe, which are always used and not replaced
    tokens   tokens of this row, [1, F] each, until the next frame has read them
    """

    about: AttentionMemory
    nothing: Tensor = field(repr=False)
    anchors: dict[Key, Tensor] = field(repr=False)
    before: "TokenPast | None" = field(default=None, repr=False)
    trust: Tensor | None = None
    places: Places | None = field(default=None, repr=False)
    known: Tensor | None = None
    painted: bool = False
    tokens: dict[Key, Tensor] = field(default_factory=dict, repr=False)

    def offered(
        self, key: Key, settings: AttentionSettings, timestep: float, cells: tuple[int, int]
    ) -> dict[str, Tensor]:
        """Inputs of a pass: `past` [1, P, F], `past_weight` [1, P, h, w] and `own_weight` [1, 1].

        cells  (h, w) of the latent

        A missing reference is zeros with weight 0. If all are missing, the own weight is 1.
        """
        seen = settings.window[0] <= timestep <= settings.window[1]
        references = [self._anchor(key, settings, cells), self._previous(key, settings, cells)]
        if self.about.references == 1:
            references = references[1:] if settings.previous else references[:1]
        off = self.nothing.new_zeros(1, *cells, dtype=torch.float32)
        past = [self.nothing if tokens is None or not seen else tokens for tokens, _ in references]
        weights = [off if tokens is None or not seen else weight for tokens, weight in references]
        weight = torch.stack(weights, 1)
        own = torch.where(weight.amax() > 0, settings.own, 1.0).reshape(1, 1)
        return {"past": torch.stack(past, 1), "past_weight": weight, "own_weight": own}

    def leave(self, key: Key, kept: Tensor) -> None:
        """Store the tokens of a pass, [1, F], which must not be the engine's memory. Those of the frame before for this
        pass have been read and are dropped."""
        self.tokens[key] = kept
        if self.before is not None:
            self.before.tokens.pop(key, None)
        if self.painted:
            return
        anchor = self.anchors.get(key)
        if anchor is None:
            self.anchors[key] = kept
        elif self.known is not None:  # chosen on the device, so that the host does not wait
            self.anchors[key] = torch.where(self.known > 0, anchor, kept)

    def end(self) -> None:
        """After the last call: drop the references to earlier frames, which otherwise would all stay alive."""
        self.before = self.trust = self.places = self.known = None

    def _anchor(self, key: Key, settings: AttentionSettings, cells: tuple[int, int]) -> tuple[Tensor | None, Tensor]:
        known = None if self.painted else self.known
        return self._reference(self.anchors.get(key), settings.anchor, None, known, cells)

    def _previous(self, key: Key, settings: AttentionSettings, cells: tuple[int, int]) -> tuple[Tensor | None, Tensor]:
        tokens = None if self.before is None or not settings.previous else self.before.tokens.get(key)
        if tokens is not None and self.places is not None:
            tokens = pulled(tokens, self.about, self.places)
        return self._reference(tokens, settings.previous, self.trust, self.known, cells)

    def _reference(
        self,
        tokens: Tensor | None,
        share: float,
        trust: Tensor | None,
        known: Tensor | None,
        cells: tuple[int, int],
    ) -> tuple[Tensor | None, Tensor]:
        weight = self.nothing.new_full((1, *cells), share, dtype=torch.float32)
        if trust is not None:
            weight = weight * trust[:, 0]
        if known is not None:
            weight = weight * known
        return tokens if share else None, weight


class CrossFrame:
    """The tokens of one stream, passed from frame to frame.

    A frame begins a shot after a discontinuity, after a change of the prompt, a LoRA or the number of calls, and if the
    mean trust of the flow is below `coverage`. It does not attend to earlier frames and is the anchor of later ones.
    """

    def __init__(self, about: AttentionMemory, dtype: torch.dtype, device: torch.device) -> None:
        self._about = about
        self._ops = arithmetic(device)
        self._nothing = torch.zeros(1, about.numbers, dtype=dtype, device=device)
        self.reset()

    def reset(self) -> None:
        """Forget every frame."""
        self._last: TokenPast | None = None
        self._told: tuple[int, Mapping[str, Tensor], Mapping[str, Tensor]] | None = None
        self._anchors: dict[Key, Tensor] = {}
        self._since: Stamp | None = None
        self._gap = self._painted = False

    def skip(self) -> None:
        """Note a held frame: the flow of the next frame does not lead to the last frame with tokens."""
        self._gap = True

    def alone(self) -> TokenPast:
        """The past of a picture without earlier frames. Its tokens are stored in its `anchors`."""
        return TokenPast(self._about, self._nothing, {})

    def enter(
        self, stamp: Stamp, settings: AttentionSettings, told: tuple[int, Mapping[str, Tensor], Mapping[str, Tensor]],
        flow: Tensor | None, trust: Tensor | None, painted: dict[Key, Tensor] | None = None,
    ) -> TokenPast:  # fmt: skip
        """The past of the next frame.

        told         number of calls, conditioning and unconditional conditioning of the frame
        flow, trust  [1, 2, H, W] px to the frame before, and [1, 1, h, w] for each latent cell; None: unknown
        painted      tokens of the keyframe, if that is the anchor; else None
        """
        if stamp.discontinuity or self._told is None or not _same(told, self._told):
            self.reset()
        elif painted is None and (self._painted or self.due(stamp, settings)):
            self._anchors, self._since = {}, None
        self._painted = painted is not None
        anchors = self._anchors if painted is None else painted
        past = TokenPast(self._about, self._nothing, anchors, self._last, painted=self._painted)
        if trust is not None:
            past.known = (trust.mean() >= settings.coverage).to(torch.float32).reshape(1)
        if settings.pull == "flow" and trust is not None and flow is not None:
            past.trust = trust.mean().expand_as(trust) if self._gap else trust
            past.places = None if self._gap else places_of(flow, self._about, self._ops)
        self._last, self._told, self._gap = past, told, False
        self._since = self._since or stamp
        return past

    def due(self, stamp: Stamp, settings: AttentionSettings) -> bool:
        """Whether the frame takes the place of the anchor, which is `refresh` frames old."""
        return (
            settings.refresh is not None and self._since is not None and stamp.seq - self._since.seq >= settings.refresh
        )

    def knows(self, told: tuple[int, Mapping[str, Tensor], Mapping[str, Tensor]]) -> bool:
        """Whether the frame before had this very `told` (`enter`), so that no values need be compared."""
        if self._told is None:
            return True
        pairs = zip(told[1:], self._told[1:], strict=True)
        return told[0] == self._told[0] and all(
            a.keys() == b.keys() and all(a[name] is b[name] for name in a) for a, b in pairs
        )

    @property
    def state(self) -> tuple[Any, ...]:
        """What the next frame reads, as a tree (`state_tree.py`)."""
        return self._nothing, self._last, self._told, self._anchors, self._since, self._gap, self._painted

    @state.setter
    def state(self, state: tuple[Any, ...]) -> None:
        self._nothing, self._last, self._told, self._anchors, self._since, self._gap, self._painted = state


def places_of(flow_cur_to_prev: Tensor, about: AttentionMemory, ops: Arithmetic) -> Places:
    """The nearest token in the frame before for each token, by size of layer. Outside positions are clamped to the
    border."""
    found = {}
    for grid in dict.fromkeys((layer.rows, layer.columns) for layer in about.layers):
        flow = ops.resize_flow(flow_cur_to_prev, grid)[0]
        rows = torch.arange(grid[0], device=flow.device)[:, None]
        columns = torch.arange(grid[1], device=flow.device)
        y = (rows + flow[1]).round().clamp(0, grid[0] - 1)
        x = (columns + flow[0]).round().clamp(0, grid[1] - 1)
        found[grid] = (y * grid[1] + x).long().flatten()
    return found


def pulled(tokens: Tensor, about: AttentionMemory, places: Places) -> Tensor:
    """Tokens of the frame before, [1, F], warped onto the present frame."""
    parts = torch.split(tokens[0], [layer.numbers for layer in about.layers])
    moved = [
        part.view(-1, layer.width).index_select(0, places[layer.rows, layer.columns]).view(-1)
        for layer, part in zip(about.layers, parts, strict=True)
    ]
    return torch.cat(moved)[None]


def _same(
    a: tuple[int, Mapping[str, Tensor], Mapping[str, Tensor]], b: tuple[int, Mapping[str, Tensor], Mapping[str, Tensor]]
) -> bool:
    """Two frames have equal calls and conditioning (`told`). Values are compared only after a change of settings."""
    return a[0] == b[0] and all(same_tensors(one, other) for one, other in zip(a[1:], b[1:], strict=True))


def same_tensors(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Two sets of tensors are equal, by name. Values are compared only for tensors that are not the same object."""
    return a is b or (a.keys() == b.keys() and all(a[name] is b[name] or torch.equal(a[name], b[name]) for name in a))
