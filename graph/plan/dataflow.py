"""The way of a frame: every stage, called in its order, from the source to the sinks.

`plan_graph` runs `pass_frame` once, with a recorder in the place of the stages. A run then calls what was called here,
in this order, and hands on what is handed on here: by calls inside a lane (`runtime/lane.py`), by links between lanes.

In a stream batch of K calls (`stages.predict.stream`) `predict` is K - 1 frames behind. What enters it and what leaves
it are different frames, and each has a branch of its own to the past.
"""

from typing import NamedTuple

from warpfuse.graph.plan.config import DIS, GraphConfig
from warpfuse.graph.plan.graph_plan import StageCall, Value

Seen = tuple[Value, Value, Value | None, str, str]
"""Latent, motion, the motion again if `predict` looks at the frame before, and the texts of predict and fuse."""


class Styled(NamedTuple):
    """A picture made, the latent that was decoded to it, and the past that it was made with, if that is a picture."""

    paint: Value
    latent: Value
    past: Value | None = None


def pass_frame(
    call: StageCall, config: GraphConfig, calls: int, *, temporal: bool, printed: bool, attends: bool = False
) -> None:
    """One frame.

    calls     network calls of a frame, K
    temporal  it has a past
    printed   the bundle draws lines
    attends   its UNet sees tokens of earlier frames
    """
    raw = call("source", config.source, role="source")
    picture = call("upload", "uint8 to float, onto the device", raw=raw)
    latent = call("encode", "picture to latent", frame=picture)
    streamed = config.stages.predict.stream
    late = calls - 1 if temporal and streamed else 0
    rows = f"{calls} rows of as many frames" if streamed and calls > 1 else f"{config.steps} step(s)"
    sampling, fusing = f"sampling, {rows}", f"fusion, weight {config.stages.fuse.weight:g}"
    if temporal:
        kind = "dis_flow" if config.flow == DIS else "network_flow"
        motion = call("flow", f"optical flow and trust ({config.flow})", kind=kind, frame=picture)
        followed = motion if attends or config.stages.fuse.between in ("latent", "picture") else None
        way = _restyle_streamed if late else _restyle
        shown = way(call, config, calls, (latent, motion, followed, sampling, fusing), printed)
    else:
        predicted = call("predict", sampling, source=latent)
        shown = Styled(call("decode", "latent to picture", latent=predicted), predicted)
    if printed:
        paint, drawn, past = shown
        source = Value(picture.stage, ahead=late)  # it waits for the latent of its frame
        shown = Styled(call("composite", "inks and lines", paint=paint, latent=drawn, source=source, past=past), drawn)
    out = call("download", "float to uint8, onto the host", frame=shown.paint)
    for number, sink in enumerate(config.sinks, start=1):
        call(f"sink_{number}", sink, kind="sink", role="sink", frame=out)


def _restyle(call: StageCall, config: GraphConfig, calls: int, seen: Seen, printed: bool) -> Styled:
    """The frame is predicted when the one before it is shown: one warp of the past serves entry and exit."""
    latent, motion, followed, sampling, fusing = seen
    fusion, onto, encoding = config.stages.fuse, "last picture onto this frame", "warped picture to latent"
    match fusion.reference:
        case "picture":
            last = Value("composite" if printed else "decode", delay=1)
            warped = call("warp", onto, motion=motion, styled=last)
            reference = call("encode_past", encoding, kind="encode", frame=warped)
            predicted = call("predict", sampling, source=latent, reference=reference, motion=followed)
            fused = call("fuse", fusing, prediction=predicted, reference=reference)
            held = warped if config.pace.active else None
            return Styled(call("decode", "latent to picture", latent=fused, past=held), fused, warped)
        case "latent":
            warped = call("warp", "last x0 onto this frame", motion=motion, styled=Value("fuse", delay=1))
            predicted = call("predict", sampling, source=latent, reference=warped, motion=followed)
            fused = call("fuse", fusing, prediction=predicted, reference=warped)
            return Styled(call("decode", "latent to picture", latent=fused), fused)
        case "output":
            last = Value("composite" if printed else "blend", delay=1)
            warped = call("warp", onto, motion=motion, styled=last)
            entry = call("encode_past", encoding, kind="encode", frame=warped) if fusion.entry else None
            predicted = call("predict", sampling, source=latent, reference=entry, motion=followed)
            decoded = call("decode", "latent to picture", latent=predicted)
            return Styled(call("blend", fusing, picture=decoded, past=warped), predicted, warped)


def _restyle_streamed(call: StageCall, config: GraphConfig, calls: int, seen: Seen, printed: bool) -> Styled:
    """What enters meets the picture K frames back, along the flow composed; what leaves, the picture before it."""
    latent, motion, followed, sampling, fusing = seen
    fusion = config.stages.fuse
    of_latents, of_output = fusion.reference == "latent", fusion.reference == "output"
    last_latent = "fuse" if fusion.exit and not of_output else "predict"
    last_picture = "composite" if printed else "blend" if fusion.exit and of_output else "decode"
    last, what = (last_latent, "x0") if of_latents else (last_picture, "picture")
    entry = past = reference = None
    if fusion.entry:
        far, onto = call("compose_motion", f"flow over {calls} frames", motion=motion), "onto the frame that enters"
        entry = call("warp_entry", f"last {what} {onto}", kind="warp", motion=far, styled=Value(last, delay=calls))
        if not of_latents:
            entry = call("encode_entry", "warped picture to latent", kind="encode", frame=entry)
    leaving = call("predict", sampling, source=latent, reference=entry, motion=followed)
    if fusion.exit:
        # the flow of the frames in the batch waits in this link for their pictures
        waiting, onto = Value(motion.stage, ahead=calls - 1), "onto the frame that leaves"
        reference = call("warp", f"last {what} {onto}", motion=waiting, styled=Value(last, delay=1))
        past = None if of_latents else reference
        if not of_latents and not of_output:
            reference = call("encode_past", "warped picture to latent", kind="encode", frame=reference)
    if last_latent == "fuse":
        leaving = call("fuse", fusing, prediction=leaving, reference=reference)
    shown = call("decode", "latent to picture", latent=leaving)
    if fusion.exit and of_output:
        shown = call("blend", fusing, picture=shown, past=reference)
    return Styled(shown, leaving, past)
