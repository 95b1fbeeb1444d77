"""The options of an export, and their limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from warpfuse.engine.bundle_parts import MOST_CHUNKS

from ..onnx_writing import ExportError
from ..targets import ONNX_ALONE, Targets
from .attention import MOST_REFERENCES, Reach
from .control_files import ControlSource
from .deep import check_alone
from .embeddings import Embedding
from .image_files import ImageSource
from .lora.live import live_names
from .lora.merging import Lora
from .quantized import Kind

SMALLEST_PX, MOST_STEPS = 64, 4


@dataclass(frozen=True, slots=True)
class Request:
    """Options of an export.

    size        (width, height) of the pictures, px
    steps       rows of the UNet's batch, and network calls of a frame
    live        the scales of the LoRAs stay inputs of the networks; else the LoRAs are merged
    embeddings  embeddings of textual inversion, for use in prompts
    vae         "full", "taesd", a path or a hub id
    solver      replaces that of the family
    clip_skip   layer of the text encoder whose state is used, counted as in `text_network`
    prompt      the default prompt
    chunks      number of chunks of 77 tokens of a prompt that the UNet takes
    controls    ControlNets and T2I-Adapters
    images      IP-Adapters
    attention   layers of the UNet that attend to tokens of earlier frames; None: no layer
    references  number of earlier frames for them
    deep        last layers of the UNet that run for every frame, where its deep part need not; None: it is not split
    quantize    format of the UNet's products in 8 bits; None: they are as `dtype`
    frames      frames for it, rgb [1, 3, H, W] in [0, 1]; the last quarter are not calibrated on
    check       write and measure all networks, print the table of errors, and only then refuse

    Raises ExportError for LoRAs that cannot be live together, and for what cannot be split.
    """

    size: tuple[int, int]
    steps: int
    loras: Sequence[Lora] = ()
    live: bool = False
    embeddings: Sequence[Embedding] = ()
    vae: str = "full"
    dtype: Literal["fp16", "bf16", "fp32"] = "fp16"
    solver: str | None = None
    clip_skip: int | None = None
    prompt: str = ""
    chunks: int = 1
    controls: Sequence[ControlSource] = ()
    images: Sequence[ImageSource] = ()
    attention: Reach | None = None
    references: int = MOST_REFERENCES
    deep: int | None = None
    quantize: Kind | None = None
    frames: Sequence[Tensor] = ()
    check: bool = False
    targets: Targets = ONNX_ALONE

    def __post_init__(self) -> None:
        check_alone(self.deep, {"--attention": self.attention, "--control or --adapter": self.controls})
        if self.live:
            live_names(self.loras)


def check_limits(request: Request, multiple: int) -> None:
    """Raise ExportError for a size that is no multiple of `multiple`, and for numbers out of range."""
    width, height = request.size
    if min(request.size) < SMALLEST_PX or width % multiple or height % multiple:
        raise ExportError(
            f"size {width}x{height}: expected multiples of {multiple} of {SMALLEST_PX} or more, as in 512x512"
        )
    if not 1 <= request.steps <= MOST_STEPS:
        raise ExportError(f"steps {request.steps}: expected 1 to {MOST_STEPS}")
    if not 1 <= request.chunks <= MOST_CHUNKS:
        raise ExportError(f"--prompt-chunks {request.chunks}: expected 1 to {MOST_CHUNKS}, each of 75 tokens")
    if not 1 <= request.references <= MOST_REFERENCES:
        raise ExportError(f"--references {request.references}: expected 1 to {MOST_REFERENCES}")
