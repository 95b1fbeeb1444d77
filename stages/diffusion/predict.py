"""Sampling: from the clean latent of the source frame to the predicted x0 of the styled one."""

from collections.abc import Hashable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from warpfuse.engine.contract import Engine
from warpfuse.engine.cuda_streams import ToDevice
from warpfuse.stages.arithmetic import Arithmetic, arithmetic
from warpfuse.stages.borrowed import owned
from warpfuse.stages.controls.settings import check_controls
from warpfuse.stages.diffusion.anchor_past import AnchorPast, anchor_past
from warpfuse.stages.diffusion.attention import CrossFrame, check_memory, same_tensors
from warpfuse.stages.diffusion.deep import DeepCache, check_deep
from warpfuse.stages.diffusion.denoise import Denoise
from warpfuse.stages.diffusion.hint import HintInputs
from warpfuse.stages.diffusion.image_tokens import check_image_inputs
from warpfuse.stages.diffusion.keyframe_past import KeyframePast
from warpfuse.stages.diffusion.loras import check_input
from warpfuse.stages.diffusion.noise import Noises
from warpfuse.stages.diffusion.prompts import Prompts
from warpfuse.stages.diffusion.reference_warp import LatentWarp, PictureWarp
from warpfuse.stages.diffusion.rows import Row, start
from warpfuse.stages.diffusion.sampling import sampling_of
from warpfuse.stages.diffusion.schedule import FrameSchedule, PredictSettings, Sampling, frame_schedule
from warpfuse.stages.diffusion.settings import Kind, check_attention, check_cache, past_encoder
from warpfuse.stages.diffusion.stream_batch import StreamBatch, step_all
from warpfuse.stages.frame import Frame, Latent, Motion, Stamp
from warpfuse.stages.motion.warp import latent_trust
from warpfuse.stages.stage import Capturable, Opening, Stage


def settings_of(config: Any, prompts: Prompts) -> PredictSettings:
    """The settings of this stage in a configuration. Raises StyleError, LoraError or ImageError for unknown names."""
    return PredictSettings(
        conditioning=prompts(config.prompt, config.negative, config.loras, config.images),
        strength=config.strength,
        steps=config.steps,
        fuse=config.stages.fuse,
        guidance=config.stages.predict.as_guidance(),
        warp=config.stages.warp,
        attention=config.stages.predict.attention,
        controls=config.controls,
        cache_deep=config.stages.predict.cache_deep,
    )


def open(opening: Opening) -> Stage:
    """The stage of a run. Raises BadInput."""
    config, about, unet = opening.config, opening.bundle.about, opening.network("unet")
    sampling = sampling_of(opening.bundle)
    check_input("unet", unet.inputs, about.loras)
    check_memory(unet.inputs, about.attention)
    check_attention(config.stages.predict.attention, about.attention is not None)
    check_deep(unet.outputs, about.splits)
    check_cache(config.stages.predict.cache_deep, about.splits)
    check_controls(config.controls, about.controls)
    check_image_inputs(unet.inputs, about.images)
    return Predict(
        Denoise(unet, sampling, opening.network("unet_shallow") if about.splits else None),
        sampling,
        settings_of(config, opening.prompts),
        config.seed,
        opening.device,
        stream=config.stages.predict.stream,
        pulls=_pulls(opening),
        attention=_attention(opening, unet),
        hints=HintInputs(about.controls, unet.inputs, torch.device(opening.device)),
        keyframe=KeyframePast(partial(opening.network, "encoder"), opening.bundle.about.latent.scale),
    )


def _attention(opening: Opening, unet: Engine) -> CrossFrame | None:
    about = opening.bundle.about.attention
    if about is None:
        return None
    dtype = next(spec.dtype for spec in unet.inputs if spec.name == "past")
    return CrossFrame(about, getattr(torch, dtype), torch.device(opening.device))


def _pulls(opening: Opening) -> Mapping[Kind, LatentWarp | PictureWarp]:
    found: dict[Kind, LatentWarp | PictureWarp] = {}
    for kind in sorted(opening.config.stages.fuse.pulls):
        if kind == "latent":
            found[kind] = LatentWarp(opening.device)
        else:
            about, encode = opening.bundle.about, opening.config.stages.encode
            networks = opening.network("decoder"), opening.network(past_encoder(encode, about.networks))
            found[kind] = PictureWarp(*networks, about.latent.scale, twice=encode.twice)
    return found


class Predict(Stage, Capturable):
    """The sampler: all UNet calls of a frame, with fusion before the first and, if configured, between steps.

    inputs  source     clean latent z of the source frame
            reference  latent of the newest styled picture, warped and encoded, and its trust; optional
            motion     to the frame before; optional
            anchor     motion to the anchor of the shot; optional. A frame whose trust is 0 everywhere becomes the
                       anchor itself. A motion with a keyframe makes the keyframe the anchor
            hints      hints of control maps; optional
    gives   predicted x0 after the last call

        entry      x_0 = alpha_0 [w z_ref + (1 - w) z] + sigma_0 [w n_ref + r z_0]
        a call     (x0, n) = split(x, UNet(x));    (x0', n') = solver(x0, n, z_{k+1})
        AdaIN      x0' with the anchor's mean and contrast
        between    x = alpha' [w x0_ref + (1 - w) x0'] + sigma' [w n_ref + r n'], for each window in turn

    By default all network calls of a frame are made in one call of the stage. As a stream batch (`stream_batch.py`)
    each call of the stage makes one network call for the last K frames. Then the first K - 1 calls return None, and
    `flush` returns the last frames. Held frames pass without the network.
    Owns its engines and closes them.
    """

    def __init__(
        self,
        denoise: Denoise,
        sampling: Sampling,
        settings: PredictSettings,
        seed: int,
        device: str,
        *,
        stream: bool = False,
        pulls: Mapping[Kind, LatentWarp | PictureWarp] | None = None,
        attention: CrossFrame | None = None,
        hints: HintInputs | None = None,
        keyframe: KeyframePast | None = None,
    ) -> None:
        self._denoise = denoise
        self._sampling = sampling
        self._device = torch.device(device)
        self._ops = arithmetic(self._device)
        self._noises = Noises(seed, self._device)
        self._to_device = ToDevice(self._device)
        self._pulls = pulls or {}
        self._attention = attention
        self._hints = hints
        self._keyframe = keyframe
        self._deep = DeepCache(self._device)
        self._settings: PredictSettings | None = None
        self._batch = StreamBatch(denoise, self._pulls) if stream else None
        self._last: Row | None = None
        self._anchor: dict[int, Tensor] = {}
        self._fresh: dict[int, Tensor] = {}
        self._fresh_of = -1
        self.update(settings)

    def __call__(
        self,
        source: Latent,
        reference: Frame | None = None,
        motion: Motion | None = None,
        anchor: Frame | None = None,
        hints: Frame | None = None,
    ) -> Latent | None:
        """Sample a frame. Returns the finished frame: this one, or with a stream batch an earlier one or None."""
        if self._batch is not None:  # rows stay for several calls
            source = owned(source)
            reference, motion, anchor = owned(reference), owned(motion), owned(anchor)
        noises = self._noises.with_fresh(self._drawn(source))
        self._fresh = {}
        row = start(source, self._schedule, noises, reference, self._ops)
        if self._hints is not None:
            row.hints = self._hints(hints)
        painted = anchor.painted if isinstance(anchor, Motion) else None
        self._follow(row, motion, painted)
        row.deep = self._deep.enter(source.stamp, motion, self._every, _cells(row))
        if isinstance(anchor, Motion):
            row.anchor = self._anchor_of(row, _at_latent(self._ops, row, anchor), painted)
        if self._batch is None:
            while not row.finished:
                step_all([row], self._denoise, self._pulls)
            return _result(row)
        return _left(self._batch.step([row]))

    def held(
        self,
        source: Frame,
        reference: Frame | None = None,
        motion: Frame | None = None,
        anchor: Frame | None = None,
        hints: Frame | None = None,
    ) -> Frame:
        """The bare frame: held frames pass without the network."""
        self._deep.skip(motion)
        if self._attention is not None:
            self._attention.skip()
        return Frame(source.stamp)

    def flush(self) -> Latent | None:
        """After the last frame: finish and return the next frame of the batch; None when it is empty."""
        if self._batch is None:
            return None
        while len(self._batch):
            if (frame := _left(self._batch.step())) is not None:
                return frame
        return None

    def reset(self) -> None:
        """Forget all frames: those in the batch and what is remembered of earlier ones."""
        if self._batch is not None:
            self._batch = StreamBatch(self._denoise, self._pulls)
        if self._attention is not None:
            self._attention.reset()
        self._deep.forget()
        self._last, self._anchor, self._fresh = None, {}, {}

    def update(self, settings: PredictSettings) -> None:
        """Use new settings from the next frame on. Frames in the batch keep their own."""
        if self._settings is None or not _alike(settings, self._settings):
            self._deep.forget()
        self._settings, self._every = settings, settings.cache_deep
        self._schedule = frame_schedule(self._sampling, settings, self._to_device)

    def prepare(self, stamp: Stamp, inputs: Mapping[str, Any]) -> Hashable | None:
        """See `Capturable`. The frame's fresh noise is drawn.

        Another prompt is compared with that of the tokens by values, and a keyframe with the last one, for which the
        host waits: their frames must be called. So must all where the trust decides whether the deep part runs.
        """
        attention, anchor, source = self._attention, inputs.get("anchor"), inputs["source"]
        if not (self._denoise.capturable and all(pull.capturable for pull in self._pulls.values())):
            return None
        if self._every > 1 or (self._batch is not None and any(row.deep is not None for row in self._batch.rows)):
            return None
        if isinstance(anchor, Motion) and anchor.painted is not None:
            return None
        if isinstance(source, Latent):
            self._fresh = self._drawn(source)
        if attention is None:
            return ()
        known = attention.knows(_told(self._schedule))
        return (attention.due(stamp, self._schedule.attention),) if known else None

    @property
    def state(self) -> tuple[Any, ...]:
        """The schedule with what it keeps on the device, the noises, and what is remembered of earlier frames."""
        rows = None if self._batch is None else self._batch.rows
        attention = None if self._attention is None else self._attention.state
        return self._schedule, self._noises, self._fresh, rows, self._last, self._anchor, attention

    @state.setter
    def state(self, state: tuple[Any, ...]) -> None:
        self._schedule, self._noises, self._fresh, rows, self._last, self._anchor, attention = state
        if self._batch is not None:
            self._batch.rows = rows
        if self._attention is not None:
            self._attention.state = attention

    def close(self) -> None:
        """Close every network, and give the pinned memory back."""
        self._denoise.close()
        self._noises.close()
        self._to_device.close()
        for pull in self._pulls.values():
            pull.close()
        if self._keyframe is not None:
            self._keyframe.close()

    def _drawn(self, source: Latent) -> dict[int, Tensor]:
        """The fresh noise of a frame, by step; drawn once."""
        if not self._fresh or self._fresh_of != source.stamp.seq:
            self._fresh_of = source.stamp.seq
            return self._noises.drawn_for(source.stamp.seq, self._schedule.fresh_steps, source.z.shape)
        return self._fresh

    def _anchor_of(self, row: Row, motion: Motion, painted: Tensor | None) -> AnchorPast | None:
        """The anchor for the row; None if its settings do not use it. painted: the keyframe, if that is the anchor."""
        if not row.schedule.fuse.asks_anchor:
            return None
        if painted is not None and self._keyframe is not None:
            return self._keyframe.anchor(painted, len(row.schedule.plan), motion)
        self._anchor = {} if row.stamp.discontinuity else self._anchor
        return anchor_past(self._anchor, motion)

    def _follow(self, row: Row, motion: Motion | None, painted: Tensor | None) -> None:
        """Connect the row with the frame before and a keyframe, if fusion or attention uses them."""
        followed = None if motion is None else _at_latent(self._ops, row, motion)
        if self._attention is not None:
            told = _told(row.schedule)
            flow, trust = (None, None) if followed is None else (followed.flow, followed.trust)
            tokens = None
            if painted is not None and self._keyframe is not None and row.schedule.attention.anchor:
                tokens = self._keyframe.tokens(painted, row, self._denoise, self._attention)
            row.past = self._attention.enter(row.stamp, row.schedule.attention, told, flow, trust, tokens)
        if followed is None or not row.schedule.pulls_before:
            self._last = None
            return
        row.motion = followed
        row.before, self._last = self._last, row


def _told(schedule: FrameSchedule) -> tuple[int, Mapping[str, Tensor], Mapping[str, Tensor]]:
    """What a frame's tokens depend on, besides the frame (`CrossFrame.enter`)."""
    return len(schedule.plan), schedule.conditioning, schedule.unconditional


def _alike(a: PredictSettings, b: PredictSettings) -> bool:
    """The settings are equal. Tensors are compared only where they are other objects."""
    one, other = a.conditioning, b.conditioning
    prompts = same_tensors(one.given, other.given) and same_tensors(one.unconditional, other.unconditional)
    return prompts and replace(a, conditioning=other) == b


def _cells(row: Row) -> tuple[int, int]:
    return row.source.shape[-2], row.source.shape[-1]


def _at_latent(ops: Arithmetic, row: Row, motion: Motion) -> Motion:
    """The motion with its trust reduced to the cells of the latent."""
    factor = motion.trust.shape[-1] // row.source.shape[-1]
    trust = latent_trust(ops, motion.trust, factor, row.schedule.warp)
    return Motion(row.stamp, motion.flow, trust)


def _left(finished: list[Row]) -> Latent | None:
    """The frame that a step finished, or None. At most one finishes, since all frames of a stream have K calls."""
    (row,) = finished or (None,)
    return None if row is None else _result(row)


def _result(row: Row) -> Latent:
    return Latent(row.stamp, row.x)
