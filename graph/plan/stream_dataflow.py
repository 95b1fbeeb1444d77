"""The way of a frame through a stream batch of K calls (`stages.predict.stream`).

`predict` is K - 1 frames behind. What enters it and what leaves it are different frames, and each has a branch of its
own to the past.
"""

from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.plan.graph_plan import StageCall, Value
from warpfuse.graph.plan.side_branches import Seen, Styled, encoding_of, hints_of


def restyle_streamed(call: StageCall, config: GraphConfig, calls: int, seen: Seen, printed: bool) -> Styled:
    """What enters meets the picture K frames back, along the flow composed; what leaves, the picture before it."""
    picture, latent, motion, followed, anchor, sampling, fusing = seen
    fusion, encode = config.stages.fuse, encoding_of(config)
    of_latents, of_output = fusion.reference == "latent", fusion.reference == "output"
    last_latent = "fuse" if fusion.exit and not of_output else "predict"
    last_picture = "composite" if printed else "blend" if fusion.exit and of_output else "decode"
    last, what = (last_latent, "x0") if of_latents else (last_picture, "picture")
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
        # the flow of the frames in the batch waits in this link for their pictures
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
