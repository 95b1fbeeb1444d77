"""Style images as input tensors of the UNet: tokens of the pictures, and their scales."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from warpfuse.engine.bundle_parts import IMAGE_LAYERS, IMAGE_SCALE, IMAGE_TOKENS, StyleImage
from warpfuse.engine.contract import Engine, TensorSpec
from warpfuse.engine.device import settle
from warpfuse.engine.errors import BundleError
from warpfuse.stages.diffusion.style_images import StyleImageSettings, check_images, read_style_picture
from warpfuse.stages.formulas.pixels import planes_of

_REMEMBERED = 8  # pictures that are cached, so that switching among a few of them is free


class ImageTokens:
    """Turns style images into `image_tokens` [1, T, d] and `image_scale` [1, 3 n], described in `StyleImage`.

    A network is opened with the first picture that needs it, and runs once for each picture. Images that are not given
    are zeros at scale 0. If a file has disappeared, its last contents are used. Thread-safe. Owns the networks and
    closes them.

    known   images that the bundle takes
    open    opens the network with a number
    device  device of the tensors
    """

    def __init__(self, known: Sequence[StyleImage], open: Callable[[int], Engine], device: str) -> None:
        self.known = known
        self._open, self._device = open, torch.device(device)
        self._networks: dict[int, Engine] = {}
        self._files: OrderedDict[tuple[str, int], _Read] = OrderedDict()
        self._seen: OrderedDict[tuple[int, str], Mapping[str, Tensor]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, asked: Mapping[str, StyleImageSettings]) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """The tensors for these images, and those for empty pictures at the same scales, for the unconditional pass.

        Raises ImageError: an unknown name, a file without a picture.
        """
        check_images(asked, self.known)
        if not self.known:
            return {}, {}
        given, nothing = list[Tensor](), list[Tensor]()
        scales: list[float] = []
        with self._lock:
            for place, image in enumerate(self.known):
                settings = asked.get(image.name)
                if settings is None:
                    found = {"tokens": self._zeros(image), "none": self._zeros(image)}
                else:
                    told = self._of(image, settings.picture)
                    found = {"tokens": told[f"tokens_{place}"], "none": told[f"none_{place}"]}
                given.append(found["tokens"])
                nothing.append(found["none"])
                scales += [0.0] * len(IMAGE_LAYERS) if settings is None else settings.scales
        scale = torch.tensor([scales], device=self._device)
        both = [{IMAGE_TOKENS: torch.cat(tokens, 1), IMAGE_SCALE: scale} for tokens in (given, nothing)]
        settle(self._device)  # readers use other CUDA streams
        return both[0], both[1]

    def close(self) -> None:
        """Close the networks that were opened."""
        for network in self._networks.values():
            network.close()

    def _zeros(self, image: StyleImage) -> Tensor:
        return torch.zeros(1, image.tokens, image.width, device=self._device)

    def _of(self, image: StyleImage, file: str) -> Mapping[str, Tensor]:
        """The outputs of an image's network for a file. They are cached by its pixels."""
        read = self._read(image, file)
        key = image.network, read.sha256
        if key not in self._seen:
            if image.network not in self._networks:
                self._networks[image.network] = self._open(image.network)
            rgb = planes_of(torch.from_numpy(read.pixels).to(self._device))
            outputs = self._networks[image.network]({"rgb": rgb})
            self._seen[key] = {name: tensor.clone() for name, tensor in outputs.items()}  # the engine's own is borrowed
        _keep_newest(self._seen, key)
        return self._seen[key]

    def _read(self, image: StyleImage, file: str) -> "_Read":
        key = file, image.size
        known, changed = self._files.get(key), _changed(file)
        if known is None or (changed is not None and changed != known.changed):
            pixels = np.array(squared(read_style_picture(file, f"images.{image.name}.picture"), image.size))
            self._files[key] = _Read(pixels, hashlib.sha256(pixels.tobytes()).hexdigest(), changed)
        _keep_newest(self._files, key)
        return self._files[key]


class _Read(NamedTuple):
    """The pixels of a file, uint8 [s, s, 3], their hash, and the file's time and size, which tell if it has changed."""

    pixels: npt.NDArray[np.uint8]
    sha256: str
    changed: tuple[int, int] | None


def _changed(file: str) -> tuple[int, int] | None:
    try:
        found = Path(file).expanduser().stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _keep_newest(remembered: OrderedDict[Any, Any], key: Any) -> None:
    remembered.move_to_end(key)
    while len(remembered) > _REMEMBERED:
        remembered.popitem(last=False)


def squared(picture: Image.Image, side: int) -> Image.Image:
    """CLIP's preprocessing: the shorter side is scaled to `side` px, bicubic, and the centre square cut out."""
    width, height = picture.size
    short = min(width, height)
    scaled = picture.resize((side * width // short, side * height // short), Image.Resampling.BICUBIC)
    left, top = ((length - side) // 2 for length in scaled.size)
    return scaled.crop((left, top, left + side, top + side))


def check_image_inputs(inputs: Sequence[TensorSpec], known: Sequence[StyleImage]) -> None:
    """Raise BundleError unless the UNet's inputs fit the style images that its bundle lists."""
    found = {spec.name: spec.shape[1:] for spec in inputs if spec.name in (IMAGE_TOKENS, IMAGE_SCALE)}
    tokens = sum(image.tokens for image in known)
    wanted = {IMAGE_TOKENS: (tokens, known[0].width), IMAGE_SCALE: (len(IMAGE_LAYERS) * len(known),)} if known else {}
    if found != wanted:
        raise BundleError(
            f"unet: its images are {found or 'none'}, the bundle lists {wanted or 'none'}. Export it again"
        )
