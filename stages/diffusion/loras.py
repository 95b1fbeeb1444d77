"""Live LoRAs: their scales in settings and prompts, as inputs of the networks."""

import re
from collections.abc import Mapping, Sequence

from warpfuse.engine.bundle_parts import LORA_INPUT, LORA_SCALE_LIMIT, LiveLora
from warpfuse.engine.contract import TensorSpec
from warpfuse.engine.errors import BundleError
from warpfuse.stages.bundle_names import check_names
from warpfuse.stages.errors import LoraError


def lora_scales(asked: Mapping[str, float], known: Sequence[LiveLora]) -> tuple[float, ...]:
    """A scale for each of `known`, in their order: the given one, else the default of the LoRA.

    Raises LoraError: an unknown name, a bundle without live LoRAs, a scale out of range.
    """
    check_names("loras", asked, known, "live LoRA", "--lora FILE --lora-live", LoraError)
    for name, scale in asked.items():
        if not abs(scale) <= LORA_SCALE_LIMIT:
            limit = f"{LORA_SCALE_LIMIT:g}"
            raise LoraError(f"loras.{name}: expected a scale from -{limit} to {limit}, got {scale:g}")
    return tuple(float(asked.get(lora.name, lora.default)) for lora in known)


def tagged_scales(
    tags: Sequence[tuple[str, float]], asked: Mapping[str, float], known: Sequence[LiveLora]
) -> tuple[dict[str, float], list[str]]:
    """The scales in tags of a prompt, by the LoRA's name, and a line for each tag or scale that is ignored.

    tags   (name, scale) as written in the prompt, with the name of the LoRA's file. Scales of one LoRA are added
    asked  scales in the settings, which the tags override
    """
    names = {_called(lora.name): lora.name for lora in known}
    found: dict[str, float] = {}
    notes = []
    for tag, scale in tags:
        name = names.get(_called(tag))
        if name is None:
            having = f"It has: {', '.join(names.values())}" if known else "It has no live LoRAs"
            notes.append(
                f"{_tag(tag, scale)} is left out: this bundle has no live LoRA of that name. {having};"
                " export it again with --lora FILE --lora-live"
            )
            continue
        found[name] = found.get(name, 0.0) + scale
    for name, scale in list(found.items()):
        if not abs(scale) <= LORA_SCALE_LIMIT:
            limit = f"{LORA_SCALE_LIMIT:g}"
            notes.append(f"{_tag(name, scale)} is left out: expected a scale from -{limit} to {limit}")
            del found[name]
        elif name in asked and asked[name] != scale:
            notes.append(f"{_tag(name, scale)} stands in the place of loras.{name} = {asked[name]:g}")
    return found, notes


def _tag(name: str, scale: float) -> str:
    return repr(f"<lora:{name}:{scale:g}>")


def _called(name: str) -> str:
    """The name that a live LoRA gets from the name of its file, in lower case."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-_").casefold()


def check_input(network: str, inputs: Sequence[TensorSpec], loras: Sequence[LiveLora]) -> None:
    """Raise BundleError if a network takes live LoRAs, but not as many as its bundle lists."""
    spec = next((spec for spec in inputs if spec.name == LORA_INPUT), None)
    if spec is not None and (len(spec.shape) != 2 or spec.shape[1] != len(loras)):
        raise BundleError(
            f"{network}: '{LORA_INPUT}' is [{', '.join(str(n or '?') for n in spec.shape)}], the bundle lists "
            f"{len(loras)} live LoRAs, expected [rows, {len(loras)}]. Export the bundle again"
        )
