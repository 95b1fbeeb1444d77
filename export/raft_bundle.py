"""Exporting RAFT-small as a flow bundle."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.functional import interpolate

from warpfuse.engine.bundle import PLANS, FlowBundle
from warpfuse.engine.bundle_writing import check_place, write_flow_bundle

from .disk import check_room, told_when_full
from .network_files import conclude, write_plain
from .onnx_writing import ExportError
from .raft_small import SMALLEST_PX, RaftSmall
from .targets import ONNX_ALONE, Targets

TOLERANCE_PX = 0.01  # iterations amplify rounding errors; measured: about 1e-5 px
MOST_ITERATIONS = 32


def export_raft_small(
    folder: Path, network: RaftSmall, size: tuple[int, int], targets: Targets = ONNX_ALONE, check: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> FlowBundle:  # fmt: skip
    """Write the network for pictures of size (width, height) as a bundle of kind "flow". Errors leave nothing behind.

    targets  what is written beside the ONNX file;  check: print the table of errors

    The file takes cur, prev [1,3,h,w] and gives flow, flow_back [1,2,h,w]: see `RaftSmall`.
    Raises ExportError: size or iterations out of range, or the file does not compute what torch does.
    """
    width, height = size
    if min(size) < SMALLEST_PX:
        raise ExportError(f"size {width}x{height}: RAFT-small takes {SMALLEST_PX} pixels or more each way")
    if not 1 <= network.iterations <= MOST_ITERATIONS:
        raise ExportError(f"iterations {network.iterations}: expected 1 to {MOST_ITERATIONS}")
    check_place(folder)
    check_room(folder, {"flow": (sum(p.numel() for p in network.parameters()), 4)}, targets)
    with told_when_full(folder), tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "flow.onnx"
        outputs = ["flow", "flow_back"]
        example = _example(width, height)
        flow = write_plain(path, network, example, outputs, targets, tolerance=TOLERANCE_PX, measured=check)
        plans = conclude(Path(temporary) / PLANS, [flow], targets, say, check)
        return write_flow_bundle(
            folder,
            flow.files,
            plans=plans,
            name=f"raft-small-{width}x{height}",
            size=size,
            iterations=network.iterations,
            networks={"flow": "flow.onnx"},
            licence="BSD-3-Clause",
            source="princeton-vl/RAFT, RAFT-small (Teed and Deng 2020)",
        )


def _example(width: int, height: int) -> dict[str, torch.Tensor]:
    """A smooth picture and the same picture shifted by some pixels. Noise would be no typical input."""
    coarse = torch.rand(1, 3, 2 + height // 8, 2 + width // 8, generator=torch.Generator().manual_seed(0))
    scene = interpolate(coarse, (height + 8, width + 8), mode="bicubic").clamp(0, 1)
    cur, prev = scene[..., :height, :width], scene[..., 2 : height + 2, 3 : width + 3]
    return {"cur": cur.contiguous(), "prev": prev.contiguous()}
