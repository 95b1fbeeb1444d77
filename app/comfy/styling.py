"""Restyling frames of ComfyUI by a Pipeline: keys from a node's inputs, frames of any size, and whole clips."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import torch
import yaml
from torch import Tensor

from warpfuse.comfy.pictures import Each, Rgb, checked, padded, to_bytes, to_image
from warpfuse.engine.bundle import describe_bundle
from warpfuse.engine.bundle_file import BundleFile
from warpfuse.engine.errors import BadInput
from warpfuse.graph.pipeline import Pipeline

OWN = ("bundle", "prompt", "negative", "fusion", "strength", "steps", "seed")
"""Graph keys that are inputs of the nodes."""


def graph_keys(settings: str, **inputs: Any) -> dict[str, Any]:
    """The keys of a graph file, from a node's inputs and its text of further settings.

    settings  YAML, as in a graph file, without source, sinks and the keys in `OWN`
    inputs    values of the node's inputs, by key

    Raises BadInput for a text that is no YAML or no mapping, and for keys that are inputs of the node.
    """
    try:
        more = yaml.safe_load(settings) or {}
    except yaml.YAMLError as error:
        raise BadInput(f"settings: {' '.join(str(error).split())}") from None
    if not isinstance(more, dict):
        raise BadInput(f"settings: expected keys and values, as in 'flow: embedded', got {settings.strip()!r}")
    if twice := [key for key in OWN if key in more]:
        raise BadInput(f"settings: {', '.join(twice)} is an input of the node; set it there")
    return {**inputs, **more}


@contextlib.contextmanager
def own_threads() -> Iterator[None]:
    """Set the threads of torch and OpenCV for a Pipeline within the block, and restore ComfyUI's afterwards."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)  # as in a graph, where every lane would have a pool of its own
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


class Restyler:
    """A Pipeline for frames of any size, the same for all. If the networks cannot take the size, frames are padded by
    mirroring and the result is cropped.

    keys   keys of `Pipeline`. With `size`, or a bundle exported for one size, the pictures have that size
    shape  (height, width) of the frames

    A context manager, for one thread. Raises BadInput.
    """

    def __init__(self, keys: Mapping[str, Any], shape: tuple[int, int]) -> None:
        self._shape = shape
        self._size = None if "size" in keys else _size_for(str(keys["bundle"]), shape)
        sized: dict[str, Any] = {**keys} if self._size is None else {**keys, "size": self._size}
        self._pipeline = Pipeline(**sized)

    def __enter__(self) -> "Restyler":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def push(self, image: Tensor) -> Rgb | None:
        """Push one frame [H, W, 3] of an IMAGE. Returns the finished picture, or None (`Pipeline.push`)."""
        rgb = to_bytes(image)
        styled = self._pipeline.push(rgb if self._size is None else padded(rgb, self._size))
        return None if styled is None else self._cut(styled)

    def drain(self) -> list[Rgb]:
        """End the stream. Returns the remaining pictures."""
        return [self._cut(styled) for styled in self._pipeline.drain()]

    def update(self, **keys: Any) -> None:
        """Change settings from the next frame on. Raises NeedsRestart if they cannot change while frames flow."""
        self._pipeline.update(**keys)

    def close(self) -> None:
        """End the graph and its threads."""
        self._pipeline.close()

    def _cut(self, styled: Rgb) -> Rgb:
        return styled if self._size is None else styled[: self._shape[0], : self._shape[1]]


def stylize(images: Tensor, keys: Mapping[str, Any], each: Each) -> Tensor:
    """Restyle a clip, IMAGE [B, H, W, 3] -> IMAGE [B, H', W', 3], by a new Pipeline.

    each  is called after every frame. An exception from it ends the run and all its threads
    """
    images = checked(images)
    done: list[Tensor] = []

    def take(styled: Rgb) -> None:
        done.append(to_image(styled))
        each(len(done), styled)

    with own_threads(), Restyler(keys, (images.shape[1], images.shape[2])) as restyler:
        for image in images:
            if (styled := restyler.push(image)) is not None:
                take(styled)
        for styled in restyler.drain():
            take(styled)
    return torch.stack(done)


def _size_for(bundle: str, shape: tuple[int, int]) -> tuple[int, int] | None:
    """The least (width, height) that the networks take and that contains the frame; None: they have a fixed size."""
    about = describe_bundle(bundle)
    if not isinstance(about, BundleFile) or about.size is not None:
        return None  # the Pipeline says what is wrong with another kind of bundle
    least, multiple = about.sizes.minimum, about.sizes.multiple
    height, width = (-(-max(length, least) // multiple) * multiple for length in shape)
    return width, height
