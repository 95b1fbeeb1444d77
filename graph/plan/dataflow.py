"""The way of a frame: every stage, called in its order, from the source to the sinks.

`plan_graph` runs `pass_frame` once, with a recorder in the place of the stages. A run then calls what was called here,
in this order, and hands on what is handed on here: by calls inside a lane (`runtime/lane.py`), by links between lanes.

What it branches into (a stream batch, control maps, masks) is in `branches.py`.
"""

from warpfuse.graph.plan.branches import Seen, Styled, encoding_of, hints_of, last_picture, masked, restyle_streamed
from warpfuse.graph.plan.config import DIS, GraphConfig
from warpfuse.graph.plan.graph_plan import StageCall, Value


def pass_frame(
    call: StageCall,
    config: GraphConfig,
    calls: int,
    *,
    temporal: bool,
    printed: bool,
    remembers: bool = False,
    anchored: bool = False,
    keyed: bool = False,
) -> None:
    """One frame.

    calls     network calls of a frame, K
    temporal  it has a past
    printed   the bundle draws lines
    remembers its UNet can take something of earlier frames along the flow
    anchored  something is taken from the anchor, as a keyframe is
    keyed     there may be a keyframe
    """
    raw = call("source", config.source, role="source")
    picture = call("upload", "uint8 to float, onto the device", raw=raw)
    latent = call("encode", "picture to latent", frame=picture)
    streamed = config.stages.predict.stream
    late = calls - 1 if streamed else 0
    rows = f"{calls} rows of as many frames" if streamed and calls > 1 else f"{config.steps} step(s)"
    deep = config.stages.predict.cache_deep
    often = f", deep part every {deep} frames" if deep > 1 else ""
    sampling, fusing = f"sampling, {rows}{often}", f"fusion, weight {config.stages.fuse.weight:g}"
    motion: Value | None = None
    anchor: Value | None = None
    if temporal or remembers:
        kind = "dis_flow" if config.flow == DIS else "network_flow"
        motion = call("flow", f"optical flow and trust ({config.flow})", kind=kind, frame=picture)
    if motion is not None and temporal:
        followed = motion if remembers or config.stages.fuse.pulls else None
        if anchored:
            told = motion if keyed else None
            anchor = call("anchor", f"flow to the anchor ({config.flow})", frame=picture, motion=told)
        way, last = restyle_streamed if late else _restyle, last_picture(config, printed=printed, keyed=keyed)
        shown = way(call, config, calls, Seen(picture, latent, motion, followed, anchor, sampling, fusing, last))
    else:
        predicted = call("predict", sampling, source=latent, motion=motion, hints=hints_of(call, config, picture, None))
        shown = Styled(call("decode", "latent to picture", latent=predicted), predicted)
    if printed:
        paint, drawn, past = shown
        source = Value(picture.stage, ahead=late)  # it waits for the latent of its frame
        finished = call("composite", "inks and lines", paint=paint, latent=drawn, source=source, past=past)
        shown = Styled(finished, drawn, past)
    if keyed and anchor is not None:
        waiting = Value(anchor.stage, ahead=late)
        over = call("apply_keyframe", "keyframe along the flow", picture=shown.paint, anchor=waiting, past=shown.past)
        shown = Styled(over, shown.latent)
    visible = masked(call, config, picture, motion, shown.paint, late) if config.mask.active else shown.paint
    out = call("download", "float to uint8, onto the host", frame=visible)
    if config.output is not None or config.fit == "letterbox":
        size = "x".join(map(str, config.output or ()))
        out = call("fit_output", f"scaled to {size}" if size else "black bars", frame=out)
    for number, sink in enumerate(config.sinks, start=1):
        call(f"sink_{number}", sink, kind="sink", role="sink", frame=out)


def _restyle(call: StageCall, config: GraphConfig, calls: int, seen: Seen) -> Styled:
    """The frame is predicted when the one before it is shown: one warp of the past serves entry and exit."""
    picture, latent, motion, followed, anchor, sampling, fusing, last = seen
    fusion, onto, encoding = config.stages.fuse, "last picture onto this frame", "warped picture to latent"
    encode = encoding_of(config)

    def predict(reference: Value | None, past: Value | None) -> Value:
        hints = hints_of(call, config, picture, past)
        return call(
            "predict", sampling, source=latent, reference=reference, motion=followed, anchor=anchor, hints=hints
        )

    match fusion.reference:
        case "picture":
            warped = call("warp", onto, motion=motion, styled=Value(last, delay=1))
            reference = call("encode_past", encoding, kind=encode, frame=warped)
            predicted = predict(reference, warped)
            fused = call("fuse", fusing, prediction=predicted, reference=reference)
            held = warped if config.pace.active else None
            return Styled(call("decode", "latent to picture", latent=fused, past=held), fused, warped)
        case "latent":
            warped = call("warp", "last x0 onto this frame", motion=motion, styled=Value("fuse", delay=1))
            predicted = predict(warped, None)
            fused = call("fuse", fusing, prediction=predicted, reference=warped)
            return Styled(call("decode", "latent to picture", latent=fused), fused)
        case "output":
            warped = call("warp", onto, motion=motion, styled=Value(last, delay=1))
            entry = call("encode_past", encoding, kind=encode, frame=warped) if fusion.entry else None
            predicted = predict(entry, warped)
            decoded = call("decode", "latent to picture", latent=predicted)
            return Styled(call("blend", fusing, picture=decoded, past=warped), predicted, warped)
