"""Branches of the dataflow (`dataflow.py`) that depend on the configuration: stream batch, control maps, masks.

With a stream batch of K calls (`stages.predict.stream`), `predict` returns the frame that it was given K - 1 calls ago.
The frame that enters it and the frame that leaves it are different, so each has a reference warped onto it.
"""

from typing import Any, NamedTuple

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.plan.graph_plan import StageCall, Value
from warpfuse.stages.controls.settings import stage_of


class Seen(NamedTuple):
    """Inputs from which a frame is restyled.

    picture   the frame of the source
    latent    its latent
    motion    flow and confidence to the frame before
    followed  the same motion, if `predict` uses the frame before; else None
    anchor    motion to the anchor, if the anchor is used; else None
    sampling, fusing  descriptions of predict and fuse for the drawing
    last      name of the stage whose picture is fed back
    """

    picture: Value
    latent: Value
    motion: Value
    followed: Value | None
    anchor: Value | None
    sampling: str
    fusing: str
    last: str


class Styled(NamedTuple):
    """A styled picture.

    paint   the picture
    latent  the latent that was decoded to it
    past    the warped last picture that it was made with; None if a latent was warped or nothing
    """

    paint: Value
    latent: Value
    past: Value | None = None


def last_picture(config: GraphConfig, *, printed: bool, keyed: bool) -> str:
    """Name of the stage whose picture is fused into the next frame.

    printed  the bundle draws lines over the decoded picture
    keyed    the run has a keyframe
    """
    fusion = config.stages.fuse
    if keyed or printed:
        return "apply_keyframe" if keyed else "composite"
    blended = fusion.reference == "output" and (fusion.exit or not config.stages.predict.stream)
    return "blend" if blended else "decode"


def restyle_streamed(call: StageCall, config: GraphConfig, calls: int, seen: Seen) -> Styled:
    """The calls of a frame with a stream batch of K = `calls`.

    The entering frame is fused with the picture of K frames before, along the composed flow of K frames. The leaving
    frame is fused with the picture of the frame before it.
    """
    picture, latent, motion, followed, anchor, sampling, fusing, last_made = seen
    fusion, encode = config.stages.fuse, encoding_of(config)
    of_latents, of_output = fusion.reference == "latent", fusion.reference == "output"
    last_latent = "fuse" if fusion.exit and not of_output else "predict"
    last, what = (last_latent, "x0") if of_latents else (last_made, "picture")
    entry = past = onto_entry = reference = None
    if fusion.entry:
        far, onto = call("compose_motion", f"flow over {calls} frames", motion=motion), "onto the frame that enters"
        entry = call("warp_entry", f"last {what} {onto}", kind="warp", motion=far, styled=Value(last, delay=calls))
        if not of_latents:
            onto_entry = entry
            entry = call("encode_entry", "warped picture to latent", kind=encode, frame=entry)
    hints = hints_of(call, config, picture, onto_entry)
    leaving = call("predict", sampling, source=latent, reference=entry, motion=followed, anchor=anchor, hints=hints)
    if fusion.exit:
        # This link holds the flow of the frames in the batch until their pictures are predicted.
        waiting, onto = Value(motion.stage, ahead=calls - 1), "onto the frame that leaves"
        reference = call("warp", f"last {what} {onto}", motion=waiting, styled=Value(last, delay=1))
        past = None if of_latents else reference
        if not of_latents and not of_output:
            reference = call("encode_past", "warped picture to latent", kind=encode, frame=reference)
    if last_latent == "fuse":
        leaving = call("fuse", fusing, prediction=leaving, reference=reference)
    shown = call("decode", "latent to picture", latent=leaving)
    if fusion.exit and of_output:
        shown = call("blend", fusing, picture=shown, past=reference)
    return Styled(shown, leaving, past)


def hints_of(call: StageCall, config: GraphConfig, picture: Value, past: Value | None) -> Value | None:
    """The calls that make the control maps of a frame, and from them the hints for the UNet; None: no controls.

    past  the last styled picture, warped onto the frame

    Raises ConfigError for a control that needs `past` in a run without it.
    """
    maps: dict[str, Any] = {}
    for name, control in config.controls.items():
        if control.takes_past and past is None:
            raise ConfigError(
                f"controls.{name}: a map of kind {control.kind!r} is the last styled picture, warped, which this run"
                " has not: give a fusion above 0, stages.fuse.reference picture or output, and entry above 0"
            )
        stage, past_if_taken = stage_of(name), past if control.takes_past else None
        maps[stage] = call(stage, f"control map: {control.kind}", kind=control.kind, frame=picture, past=past_if_taken)
    return call("hint", "control maps to hints", **maps) if maps else None


def masked(
    call: StageCall, config: GraphConfig, picture: Value, motion: Value | None, styled: Value, late: int
) -> Value:
    """The calls that make the mask and show the source where it is 0. The result is not fed back.

    late  number of frames by which `styled` is behind `picture`
    """
    mask, about = config.mask, f"mask, {config.mask.kind} {config.mask.of}"
    if mask.kind == "file":
        found = call("mask", about, kind="file_mask", frame=picture)
    elif mask.kind == "map" and mask.of in config.controls:
        found = call("mask", about, kind="map_mask", frame=Value(stage_of(mask.of)), motion=motion)
    else:
        found = call("mask", about, kind="network_mask", frame=picture, motion=motion)
    waiting, source = Value(found.stage, ahead=late), Value(picture.stage, ahead=late)  # held for their styled picture
    return call("apply_mask", "source where the mask is 0", styled=styled, mask=waiting, source=source)


def encoding_of(config: GraphConfig) -> str:
    """The kind of stage that encodes the fed-back picture."""
    return "encode_twice" if config.stages.encode.twice else "encode_past"
