"""Compiling the kernels of the files `*.cu` for a card, and launching them.

Note: why CUDA C++. numba-cuda would take the loops of `cpu`, but these go by rows and packed bytes, which suits a CPU
only, and it needs packages that are not there otherwise. torch.compile needs Triton and a C compiler on the user's
machine, and every version of it decides anew what is one kernel. NVRTC and cuda-bindings are there already. A C
compiler takes the same text, so its arithmetic is tested on machines without a card.
"""

import re
import threading
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from warpfuse.engine import device as card
from warpfuse.engine.cuda_kernels import BLOCK, Argument, Kernels
from warpfuse.engine.errors import BackendMissing

CHUNK = 1024
"""Cells that a block adds up, as in common.cu."""

_FILES = ("common", "pixels", "backward_warp", "downscale", "confidence_mask", "moment_lock", "composite")

_opened: dict[int, Kernels | str] = {}  # by the index of the card; a string: why there are none
_lock = threading.Lock()


def missing(device: str | torch.device) -> str | None:
    """Why the kernels cannot run on this card, with the remedy; None: they can. The first call compiles them."""
    if card.count() == 0:
        return "there is no card: check nvidia-smi"
    index = card.index_of(device)
    with _lock:
        if index not in _opened:
            try:
                _opened[index] = Kernels(source(), names(), torch.device("cuda", index))
            except BackendMissing as error:
                _opened[index] = str(error)
        found = _opened[index]
    return found if isinstance(found, str) else None


def forget() -> None:
    """Compile anew at the next `missing`."""
    _opened.clear()


def launch(name: str, grid: tuple[int, ...], like: Tensor, *arguments: Argument) -> None:
    """Launch a kernel on the current stream of the card that `like` lies on. `missing` was None for that card."""
    kernels = _opened[like.device.index or 0]
    assert isinstance(kernels, Kernels)
    kernels(name, grid, *arguments)


def blocks(n: int, each: int = BLOCK) -> int:
    """Number of blocks for n pixels."""
    return -(-n // each)


def plain(x: Tensor) -> Tensor:
    """x as the kernels take it: float32 and contiguous; without a copy if it is so already."""
    return x.to(torch.float32).contiguous()


@cache
def source() -> str:
    """The text of all kernels."""
    folder = Path(__file__).parent
    return "\n".join(f'#line 1 "{name}.cu"\n{(folder / f"{name}.cu").read_text("utf-8")}' for name in _FILES)


@cache
def names() -> tuple[str, ...]:
    """The names of the kernels."""
    return tuple(re.findall(r"^KERNEL (\w+)\(", source(), re.MULTILINE))
