"""Settings of the diffusion stages. They are in a module of their own so that a configuration can be validated before
torch is loaded."""

from collections.abc import Container, Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from warpfuse.stages.errors import AttentionError, DeepCacheError
from warpfuse.stages.settings import StageSettings

GuidanceMode = Literal["none", "full", "self", "initialize"]

NoisePolicy = Literal["model", "slot", "fresh"]
"""The noise n_ref of a reference, and its correlation rho with the frame's own noise n':

    model  n_ref := n', rho = 1: the cheapest, since nothing is rescaled
    slot   the fixed noise of the step: rho = 1 if the solver adds it again (LCM, turbo), 0 if the solver continues with
           the predicted noise, in between if it adds a share of it (DDIM with eta, ancestral)
    fresh  drawn for the frame, rho = 0: the network paints over seams, but the picture flickers more
"""


def check_window(window: tuple[float, float]) -> tuple[float, float]:
    """Return the two timesteps. Raises ValueError if one is negative or the higher is first."""
    if not 0 <= window[0] <= window[1]:
        raise ValueError(f"expected two timesteps, the lower first, as in [0, 1000]; got {list(window)}")
    return window


Window = Annotated[tuple[float, float], AfterValidator(check_window)]
"""Timesteps low, high, both included."""


class Guidance(StageSettings):
    """Classifier-free guidance.

    mode   none | full | self | initialize, see `guidance.py`
    scale  g: 1 is the conditional prediction; a larger one is further from the unconditional prediction
    delta  0..2, for self and initialize: share of the assumed noise that counts as unconditional
    """

    mode: GuidanceMode = "none"
    scale: float = Field(1.0, ge=0, le=30)
    delta: float = Field(1.0, ge=0, le=2)

    @property
    def has_negative(self) -> bool:
        """There are unconditional passes of the network, so a negative prompt has an effect."""
        return self.mode in ("full", "initialize") and self.scale != 1

    def asks_twice(self, first_call: bool) -> bool:
        """A row needs an unconditional pass in this network call."""
        return self.mode == "full" or (self.mode == "initialize" and first_call)


W_MAX = 0.95
"""Largest fusion weight: at 1 an error in the picture would never decay."""

RECIPES: Mapping[str, Mapping[str, float]] = {
    "rerender": {"own": 0.0, "anchor": 1.0, "previous": 1.0},
    "streamv2v": {"own": 1.0, "anchor": 0.0, "previous": 1.0},
    "off": {"own": 1.0, "anchor": 0.0, "previous": 0.0},
}
"""Weights by name: as in Rerender-A-Video (Yang et al. 2023), as in StreamV2V (Liang et al. 2024), and off."""


def in_weights(value: Any) -> Any:
    """The weights of a recipe if `value` is its name; any other value is returned. Raises ValueError: unknown name."""
    name = "off" if value is False else value  # YAML reads off as false
    if not isinstance(name, str):
        return value
    if name not in RECIPES:
        raise ValueError(f"expected {', '.join(RECIPES)}, or keys and values, got {name!r}")
    return dict(RECIPES[name])


class AttentionSettings(StageSettings):
    """Weights of tokens in cross-frame attention, if the bundle has it.

    own       0..1: weight of the frame's own tokens; 0: only those of the anchor and the frame before count
    anchor    0..1: weight of the tokens of the first frame of the shot
    previous  0..1: weight of the tokens of the frame before, where the flow is trusted. With this and the anchor at 0
              the picture is as without attention. A bundle with one reference takes the anchor if this is 0
    window    timesteps low, high: levels at which earlier frames count
    pull      flow  the tokens of the frame before are warped along the flow and weighted by its trust
              off   they are taken in place, with weight 1
    coverage  0..1: a frame with a mean trust below this begins a shot
    refresh   number of frames of the source after which a new anchor is taken; none: only when a shot begins
    """

    own: float = Field(1.0, ge=0, le=1)
    anchor: float = Field(1.0, ge=0, le=1)
    previous: float = Field(1.0, ge=0, le=1)
    window: Window = (0.0, 1000.0)
    pull: Literal["flow", "off"] = "flow"
    coverage: float = Field(0.2, ge=0, le=1)
    refresh: int | None = Field(None, ge=1)


Attention = Annotated[AttentionSettings, BeforeValidator(in_weights)]
"""The settings, or the name of a recipe."""


def check_attention(settings: AttentionSettings, attends: bool) -> None:
    """Raise AttentionError for weights other than the default, if the bundle has no attention (`attends`)."""
    asked = settings != AttentionSettings() and bool(settings.anchor or settings.previous)
    if asked and not attends:
        raise AttentionError(
            "stages.predict.attention: this bundle was exported without attention. Export it again: warpfuse export "
            "SOURCE --attention low ..., or use stages.predict.attention=off"
        )


MOST_CACHED = 16
"""Largest `cache_deep`."""


def check_cache(cache_deep: int, splits: bool) -> None:
    """Raise DeepCacheError for a `cache_deep` above 1, if the bundle lacks the split UNet (`splits`)."""
    if cache_deep > 1 and not splits:
        raise DeepCacheError(
            f"stages.predict.cache_deep={cache_deep}: the UNet of this bundle is not split. Export the checkpoint "
            "again: warpfuse export SOURCE --cache-deep 1 ..., or use cache_deep=1"
        )


class PredictOptions(StageSettings):
    """How frames are sampled.

    stream          the network calls of K consecutive frames are made as one batch, for the throughput of a batch at a
                    delay of K - 1 frames. Otherwise the calls of a frame are made one after the other, without delay
    guidance        none; full: every row twice; self, initialize: residual, at almost no cost (`guidance.py`)
    guidance_scale  g: 1 leaves the prediction unchanged
    guidance_delta  share of the assumed noise that counts as unconditional (self, initialize)
    attention       attention to earlier frames, if the bundle has it: weights, or the name of a recipe: rerender,
                    streamv2v, off
    cache_deep      the deep part of the UNet runs for every such frame, if the bundle was exported for it. Between them
                    its result is warped along the flow. 1: for every frame
    """

    stream: bool = False
    guidance: GuidanceMode = "none"
    guidance_scale: float = Field(1.0, ge=0, le=30)
    guidance_delta: float = Field(1.0, ge=0, le=2)
    attention: Attention = AttentionSettings()
    cache_deep: int = Field(1, ge=1, le=MOST_CACHED)

    def as_guidance(self) -> Guidance:
        """The settings of guidance."""
        return Guidance(mode=self.guidance, scale=self.guidance_scale, delta=self.guidance_delta)


class MomentLockSettings(StageSettings):
    """Protection of the fed-back latent against drift.

    entry     lock the colours and contrast of the reference to the source's at the entry
    exit      0..1: how much of the contrast lost by fusion is restored at the exit
    rate      share of a new frame in the running mean of the gain; 1 follows every frame
    coverage  a frame with a mean trust below this restarts the gain: it is a cut, or little of the past is left
    drift     the gain of a channel restarts if the contrast ratio differs from the mean by more than this, relatively
    """

    entry: bool = True
    exit: float = Field(1.0, ge=0, le=1)
    rate: float = Field(0.2, gt=0, le=1)
    coverage: float = Field(0.2, ge=0, le=1)
    drift: float = Field(0.5, gt=0)


Kind = Literal["reference", "latent", "picture"]

Whose = Literal["previous", "anchor"]

BetweenName = Literal["off", "reference", "latent", "picture"]


class FusionWindow(NamedTuple):
    """One fusion between steps: `Between` with its defaults filled in."""

    kind: Kind
    of: Whose
    window: tuple[float, float]
    weight: float
    inner_strength: float
    noise: NoisePolicy


class Between(StageSettings):
    """One fusion between steps.

    kind            reference  the styled picture: of the frame before that of the entry; of the anchor its own,
                               decoded, warped and encoded, which a stream batch does not have
                    latent     x0 after the same step, warped as a latent
                    picture    x0 after the same step, decoded, warped and encoded
    of              previous   the frame before
                    anchor     the first frame of the shot, along a flow of its own
    window          timesteps low, high: fused after network calls at these levels
    weight          0..1, for the frame before at most 0.95; none: `stages.fuse.weight`
    inner_strength  0..1; none: `stages.fuse.inner_strength`
    noise           model, slot or fresh; none: `stages.fuse.noise`
    """

    kind: Kind
    of: Whose = "previous"
    window: Window = (0.0, 1000.0)
    weight: float | None = Field(None, ge=0, le=1)
    inner_strength: float | None = Field(None, ge=0, le=1)
    noise: NoisePolicy | None = None


WORD, LISTED = "word", "listed"
"""Parts of pydantic's error locations, for a value given as a word and as a list."""


def _as_windows(value: Any) -> Any:
    """A single window as a list of one, and false (YAML's off) as "off"; any other value is returned."""
    if value is False:
        return "off"
    return [value] if isinstance(value, dict) else value


def _word_or_list(value: Any) -> str:
    return LISTED if isinstance(value, list | tuple) else WORD


BetweenWindows = Annotated[
    Annotated[BetweenName, Tag(WORD)] | Annotated[tuple[Between, ...], Tag(LISTED)],
    Discriminator(_word_or_list),
    BeforeValidator(_as_windows),
]
"""One word, with window, weight and noise of `FuseSettings`, or a list of `Between`."""


class AdainSettings(StageSettings):
    """Mean and contrast of each channel of x0 are moved towards the anchor's after the same step (`adain.py`).

    weight  0..1: 0 leaves x0 unchanged, 1 gives it the anchor's mean and contrast
    window  timesteps low, high: applied after network calls at these levels
    """

    weight: float = Field(0.0, ge=0, le=1)
    window: Window = (0.0, 1000.0)


class EncodeSettings(StageSettings):
    """How pictures are encoded.

    twice  the fed-back picture is encoded, decoded and encoded again, and the loss of the autoencoder is added in
           advance (`encode_twice.py`), at one more run of decoder and encoder
    past   the network that encodes the fed-back picture
           auto     the bundle's cheaper one for it, if there is one and `twice` is off
           encoder  the one that encodes the source
    """

    twice: bool = False
    past: Literal["auto", "encoder"] = "auto"


def past_encoder(settings: EncodeSettings, networks: Container[str]) -> Literal["encoder", "encoder_past"]:
    """Name of the network that encodes the fed-back picture. networks: the names of the bundle's."""
    own = settings.past == "auto" and not settings.twice and "encoder_past" in networks
    return "encoder_past" if own else "encoder"


class FuseSettings(StageSettings):
    """Where and how strongly the past is fused in.

    weight          0..1: share of the warped past where the flow is trusted, at most 0.95; 0: each frame on its own
    reference       picture  the last styled picture, warped and encoded again
                    latent   its x0, warped as a latent: no encoder and no wait for the decoder, but blurred, since a
                             cell of 8 x 8 pixels is not shift-equivariant
                    output   the picture at the entry, and at the exit blended with the decoded picture, not into x0
    entry           0..1: share of the weight at the entry, in the latent the UNet starts from; keeps strokes sharp.
                    0: none
    between         fusion between two steps, into the latent of the next step
                    off        none
                    reference  the reference of the entry
                    latent     x0 of the frame before after the same step, warped as a latent
                    picture    the same, decoded, warped and encoded: a decoder and an encoder run for every such step
                    list       fusions, one after the other, each with its window, weight and noise
    adain           mean and contrast of the anchor (`AdainSettings`)
    exit            0..1: share of the weight at the exit, in the picture that is shown; keeps strokes still. 0: none
    lines           0..1: share of the weight in the cover of the lines, if the bundle draws lines. 0: none
    coring          0..1: changes of paint and cover up to this are fused once more, pixel by pixel, if the bundle draws
                    lines (`formulas/composite.py`). 0: none
    window          timesteps low, high: levels at which entry and between fuse
    noise           model, slot or fresh: the noise of a reference (`stages/diffusion/noise.py`)
    anchor          protection of the fed-back picture against drift (`formulas/moment_lock.py`)
    inner_strength  0..1: below 1 the rescaled noise is softened as in Rerender-A-Video (0.9 there)
    """

    weight: float = Field(0.8, ge=0, le=1)
    reference: Literal["picture", "latent", "output"] = "picture"
    entry: float = Field(1.0, ge=0, le=1)
    between: BetweenWindows = "off"
    adain: AdainSettings = AdainSettings()
    exit: float = Field(1.0, ge=0, le=1)
    lines: float = Field(0.85, ge=0, le=1)
    coring: float = Field(0.012, ge=0, le=1)
    window: Window = (0.0, 1000.0)
    noise: NoisePolicy = "model"
    anchor: MomentLockSettings = MomentLockSettings()
    inner_strength: float = Field(1.0, ge=0, le=1)

    @property
    def windows(self) -> tuple[FusionWindow, ...]:
        """The fusions between steps, in their order."""
        if self.between == "off":
            return ()
        if isinstance(self.between, str):
            kind, noise = self.between, self.noise
            return (FusionWindow(kind, "previous", self.window, self.weight, self.inner_strength, noise),)
        return tuple(self._window(one) for one in self.between)

    @property
    def pulls(self) -> frozenset[Kind]:
        """The ways in which x0 is warped between steps; their networks are opened with the run."""
        found = {"picture" if (one.kind, one.of) == ("reference", "anchor") else one.kind for one in self.windows}
        return frozenset(found - {"reference"})

    @property
    def asks_anchor(self) -> bool:
        """The anchor is used."""
        return self.adain.weight > 0 or any(one.of == "anchor" for one in self.windows)

    @property
    def largest_weight(self) -> float:
        """min(weight, W_MAX): the fusion weight at full trust."""
        return min(self.weight, W_MAX)

    @property
    def asks_past(self) -> bool:
        """Something of the past is fused."""
        return self.weight > 0 or self.adain.weight > 0 or any(one.weight > 0 for one in self.windows)

    def _window(self, one: Between) -> FusionWindow:
        weight = self.weight if one.weight is None else one.weight
        inner_strength = self.inner_strength if one.inner_strength is None else one.inner_strength
        return FusionWindow(one.kind, one.of, one.window, weight, inner_strength, one.noise or self.noise)
