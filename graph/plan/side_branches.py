"""What branches off the way of a frame and comes back to it: control maps, masks; and what the ways hand each other."""

from typing import Any, NamedTuple

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.graph.plan.graph_plan import StageCall, Value
from warpfuse.stages.controls.settings import stage_of


class Seen(NamedTuple):
    """What a frame is restyled from.

    latent    of the source
    motion    to the frame before
    followed  the same for `predict`, if it looks at that frame
    anchor    motion to the anchor, if something is taken from it
    sampling, fusing  the texts of predict and fuse
    """

    picture: Value
    latent: Value
    motion: Value
    followed: Value | None
    anchor: Value | None
    sampling: str
    fusing: str


class Styled(NamedTuple):
    """A picture made, the latent that was decoded to it, and the past that it was made with, if that is a picture."""

    paint: Value
    latent: Value
    past: Value | None = None


def hints_of(call: StageCall, config: GraphConfig, picture: Value, past: Value | None) -> Value | None:
    """What the controls make of a frame: the map of each, and of all maps what the UNet takes.

    past  the last styled picture, warped onto the frame
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
    """The styled picture where the mask is, the source elsewhere. Nothing of it goes into the next frame."""
    mask, about = config.mask, f"mask, {config.mask.kind} {config.mask.of}"
    if mask.kind == "file":
        found = call("mask", about, kind="file_mask", frame=picture)
    else:
        found = call("mask", about, kind="network_mask", frame=picture, motion=motion)
    waiting, source = Value(found.stage, ahead=late), Value(picture.stage, ahead=late)  # for the picture of their frame
    return call("apply_mask", "source where the mask is 0", styled=styled, mask=waiting, source=source)


def encoding_of(config: GraphConfig) -> str:
    """The kind of stage that encodes what is fed back."""
    return "encode_twice" if config.stages.encode.twice else "encode"
