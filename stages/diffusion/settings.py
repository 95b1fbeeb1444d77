"""Settings of the diffusion stages, apart from them: a configuration is validated before torch is loaded."""

from collections.abc import Container, Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from warpfuse.stages.errors import AttentionError
from warpfuse.stages.settings import StageSettings

GuidanceMode = Literal["none", "full", "self", "initialize"]

NoisePolicy = Literal["model", "slot", "fresh"]
"""The noise n_ref that goes with a reference, and how it is correlated with the frame's own n':

    model  n_ref := n', rho = 1: the cheapest, nothing is rescaled
    slot   the fixed noise of the step: rho = 1 where the solver makes noisy again with it (LCM, turbo), 0 where it goes
           on with the predicted noise, between the two for a share of it (DDIM with eta, ancestral)
    fresh  drawn for the frame, rho = 0: makes the network paint over seams; it flickers more
"""


def check_window(window: tuple[float, float]) -> tuple[float, float]:
    """The two timesteps. Raises ValueError: negative, or the higher first."""
    if not 0 <= window[0] <= window[1]:
        raise ValueError(f"expected two timesteps, the lower first, as in [0, 1000]; got {list(window)}")
    return window


Window = Annotated[tuple[float, float], AfterValidator(check_window)]
"""Timesteps low, high, both included."""


class Guidance(StageSettings):
    """How strongly the prompt pulls.

    mode   none | full | self | initialize, see `guidance.py`
    scale  g: 1 is the conditional prediction itself, more pulls away from the unconditional one
    delta  0..2, of self and initialize: the share of the assumed noise that counts as unconditional
    """

    mode: GuidanceMode = "none"
    scale: float = Field(1.0, ge=0, le=30)
    delta: float = Field(1.0, ge=0, le=2)

    @property
    def has_negative(self) -> bool:
        """Whether what is pulled away from is asked of the network, so that a negative prompt counts."""
        return self.mode in ("full", "initialize") and self.scale != 1

    def asks_twice(self, first_call: bool) -> bool:
        """Whether a row needs an unconditional row beside it in this network call."""
        return self.mode == "full" or (self.mode == "initialize" and first_call)


RECIPES: Mapping[str, Mapping[str, float]] = {
    "rerender": {"own": 0.0, "anchor": 1.0, "previous": 1.0},
    "streamv2v": {"own": 1.0, "anchor": 0.0, "previous": 1.0},
    "off": {"own": 1.0, "anchor": 0.0, "previous": 0.0},
}
"""Weights by name: those of Rerender-A-Video (Yang et al. 2023), of StreamV2V (Liang et al. 2024), and none."""


def in_weights(value: Any) -> Any:
    """The weights of a recipe that is given by its name; anything else as it is. Raises ValueError: no such recipe."""
    name = "off" if value is False else value  # as YAML reads off
    if not isinstance(name, str):
        return value
    if name not in RECIPES:
        raise ValueError(f"expected {', '.join(RECIPES)}, or keys and values, got {name!r}")
    return dict(RECIPES[name])


class AttentionSettings(StageSettings):
    """How much the tokens of earlier frames count, where the bundle has attention.

    own       0..1: the frame's own tokens; 0 takes them from the anchor and the frame before alone
    anchor    0..1: the tokens of the first frame of the shot
    previous  0..1: the tokens of the frame before, where the flow is trusted. At 0, and the anchor at 0, the picture
              is the one without attention. A bundle of one reference takes the anchor where this is 0
    window    timesteps low, high: levels at which earlier frames are seen
    pull      flow  the tokens of the frame before are pulled along the flow, and weighed by its trust
              off   they are taken as they lie, weighed by 1
    coverage  0..1: below this mean trust the frame begins a shot
    refresh   frames after which another one becomes the anchor; none: when a shot begins
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
    """Raises AttentionError: weights are asked for that the bundle has no use for."""
    asked = settings != AttentionSettings() and bool(settings.anchor or settings.previous)
    if asked and not attends:
        raise AttentionError(
            "stages.predict.attention: this bundle was exported without attention. Export it again: warpfuse export "
            "SOURCE --attention low ..., or use stages.predict.attention=off"
        )


class PredictOptions(StageSettings):
    """How frames are sampled.

    stream          the K network calls of K consecutive frames are made as one batch: K - 1 frames of delay, and the
                    throughput of a batch. Else a frame's calls are made one after the other, without delay
    guidance        none; full (every row twice); self, initialize: residual, next to free (`guidance.py`)
    guidance_scale  g: 1 leaves the prediction as it is
    guidance_delta  share of the assumed noise that counts as unconditional (self, initialize)
    attention       what the UNet sees of earlier frames, where the bundle has attention: weights, or a recipe by name:
                    rerender, streamv2v, off
    """

    stream: bool = False
    guidance: GuidanceMode = "none"
    guidance_scale: float = Field(1.0, ge=0, le=30)
    guidance_delta: float = Field(1.0, ge=0, le=2)
    attention: Attention = AttentionSettings()

    def as_guidance(self) -> Guidance:
        """The guidance part."""
        return Guidance(mode=self.guidance, scale=self.guidance_scale, delta=self.guidance_delta)


class MomentLockSettings(StageSettings):
    """How the fed-back latent is tied down.

    entry     lock the reference's colours and contrast to the source's at the entry
    exit      0..1: how much of the contrast lost in fusing is given back at the exit
    rate      share of a new frame in the running mean; 1 follows every frame
    coverage  below this mean trust the gain starts anew from the frame: a cut, or most of what it knew is gone
    drift     so does a channel whose contrast ratio is further from the mean than this factor less 1
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
    """One fusion between steps, as `Between` gives it, with nothing left open."""

    kind: Kind
    of: Whose
    window: tuple[float, float]
    weight: float
    inner_strength: float
    noise: NoisePolicy


class Between(StageSettings):
    """One fusion between steps.

    kind            reference  the styled picture: of the frame before the one fused in at the entry; of the anchor
                               its own, decoded, warped and encoded. Not of the anchor in a stream batch
                    latent     x0 after the same step, warped as a latent
                    picture    the same, decoded, warped and encoded
    of              previous   the frame before
                    anchor     the first frame of the shot, along a flow of its own
    window          timesteps low, high: levels the network is asked at after which it is fused
    weight          0..1, of the frame before held at `W_MAX`; none: `stages.fuse.weight`
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
"""The parts of a place in an error that stand for a word, and for a list in its place."""


def _as_windows(value: Any) -> Any:
    """One window alone as a list of one, and what YAML reads for off as off; anything else as it is."""
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
"""One word, which takes window, weight and noise from `FuseSettings`, or a list."""


class AdainSettings(StageSettings):
    """How far the predicted x0 takes the mean and contrast of each channel from the anchor's, after the same step.

    weight  0..1: 0 leaves x0 as it is, 1 gives it the anchor's (`adain.py`)
    window  timesteps low, high: levels the network is asked at after which it is done
    """

    weight: float = Field(0.0, ge=0, le=1)
    window: Window = (0.0, 1000.0)


class EncodeSettings(StageSettings):
    """How pictures are encoded.

    twice  the picture that is fed back is encoded, decoded and encoded again, and what the autoencoder loses is added
           beforehand (`encode_twice.py`): a decoder and an encoder run more for each
    past   the network that encodes that picture
           auto     the bundle's own for it, which is cheaper, where it has one and `twice` is off
           encoder  the one that encodes the source
    """

    twice: bool = False
    past: Literal["auto", "encoder"] = "auto"


def past_encoder(settings: EncodeSettings, networks: Container[str]) -> Literal["encoder", "encoder_past"]:
    """Which of a bundle's networks encodes the picture that is fed back."""
    own = settings.past == "auto" and not settings.twice and "encoder_past" in networks
    return "encoder_past" if own else "encoder"


class FuseSettings(StageSettings):
    """Where and how strongly the past is fused in.

    weight          0..1: share of the warped past where the flow is trusted, held at `W_MAX`; 0: each frame on its own
    reference       picture  the last styled picture, warped and encoded again
                    latent   its x0, warped as a latent: no encoder and no wait for the decoder; but a cell of 8 x 8
                             pixels is not shift-equivariant, so it goes soft
                    output   the picture again at entry, and at the exit blended over the decoded picture, not into x0
    entry           0..1: share of the weight in the latent the UNet starts from; keeps strokes sharp. 0: none
    between         fusion between two steps, into the latent that goes on
                    off
                    reference  the picture that was fused in at the entry
                    latent     x0 of the frame before after the same step, warped as a latent
                    picture    the same, decoded, warped and encoded: a decoder and an encoder run for every such step
                    or a list of `Between`, fused one after the other, each with its window, weight and noise
    adain           statistics of the anchor (`AdainSettings`)
    exit            0..1: share of the weight in what is shown; keeps strokes still. 0: none
    lines           0..1: share of the weight in the cover of the lines, where the bundle draws them. 0: none
    window          timesteps low, high: levels the network is asked at where entry and between may fuse
    noise           model, slot or fresh: the noise a reference comes with (`stages/diffusion/noise.py`)
    anchor          what keeps a picture that is fed back from drifting (`formulas/moment_lock.py`)
    inner_strength  0..1: below 1 the rescaled noise is softened as in Rerender-A-Video (0.9 there)
    """

    weight: float = Field(0.8, ge=0, le=1)
    reference: Literal["picture", "latent", "output"] = "picture"
    entry: float = Field(1.0, ge=0, le=1)
    between: BetweenWindows = "off"
    adain: AdainSettings = AdainSettings()
    exit: float = Field(1.0, ge=0, le=1)
    lines: float = Field(0.85, ge=0, le=1)
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
        """How x0 is brought onto a frame between steps; what it needs is opened with the run."""
        found = {"picture" if (one.kind, one.of) == ("reference", "anchor") else one.kind for one in self.windows}
        return frozenset(found - {"reference"})

    @property
    def asks_anchor(self) -> bool:
        """Whether something is taken from the anchor."""
        return self.adain.weight > 0 or any(one.of == "anchor" for one in self.windows)

    @property
    def asks_past(self) -> bool:
        """Whether anything is fused at all."""
        return self.weight > 0 or self.adain.weight > 0 or any(one.weight > 0 for one in self.windows)

    def _window(self, one: Between) -> FusionWindow:
        weight = self.weight if one.weight is None else one.weight
        inner_strength = self.inner_strength if one.inner_strength is None else one.inner_strength
        return FusionWindow(one.kind, one.of, one.window, weight, inner_strength, one.noise or self.noise)
