"""Frames of ComfyUI through a Pipeline: the graph keys a node's inputs come to, sizes of any kind, and a whole clip."""

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
"""Graph keys that are inputs of a node of their own."""


def graph_keys(settings: str, **inputs: Any) -> dict[str, Any]:
    """The keys of a graph file, of a node's inputs and its text of further settings.

    settings  YAML, as in a graph file, without source, sinks and what is an input of the node: `OWN`

    Raises BadInput for a text that is no YAML or no mapping, and for a key that is given twice.
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
    """A Pipeline takes torch's and OpenCV's threads for itself; ComfyUI gets its own back."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)  # what a graph works with: a pool in each of its threads would be too many
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


class Restyler:
    """A Pipeline over frames of any one size: those the networks cannot take are mirrored at the edge and cut again.

    keys   as `Pipeline` takes them. With a `size`, or a bundle exported for one, pictures leave at that
    shape  (height, width) of the frames

    A context manager. One thread pushes. Raises BadInput.
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
        """One frame [H, W, 3] of an IMAGE; the picture that is ready, if there is one (`Pipeline.push`)."""
        rgb = to_bytes(image)
        styled = self._pipeline.push(rgb if self._size is None else padded(rgb, self._size))
        return None if styled is None else self._cut(styled)

    def drain(self) -> list[Rgb]:
        """End, and the pictures that were still inside."""
        return [self._cut(styled) for styled in self._pipeline.drain()]

    def update(self, **keys: Any) -> None:
        """Change settings from the next frame on. Raises NeedsRestart for those that decide what was built."""
        self._pipeline.update(**keys)

    def close(self) -> None:
        """End the graph and its threads."""
        self._pipeline.close()

    def _cut(self, styled: Rgb) -> Rgb:
        return styled if self._size is None else styled[: self._shape[0], : self._shape[1]]


def stylize(images: Tensor, keys: Mapping[str, Any], each: Each) -> Tensor:
    """A clip, IMAGE [B, H, W, 3] -> IMAGE [B, H', W', 3], by a Pipeline of its own; frame 0 has no past.

    each  is called after every frame; what it raises ends the run and leaves no thread
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
    """(width, height) that the networks take and the frame fits into; None: those they were exported for."""
    about = describe_bundle(bundle)
    if not isinstance(about, BundleFile) or about.size is not None:
        return None  # the Pipeline says what is wrong with another kind of bundle
    least, multiple = about.sizes.minimum, about.sizes.multiple
    height, width = (-(-max(length, least) // multiple) * multiple for length in shape)
    return width, height
