"""Writing a network for every target, and the end of every export: plans, the table of errors, the verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from .agreement import Agreement, table
from .onnx_writing import ExportError, compare, reference, write_onnx
from .plans import build_plans, run_plan
from .targets import Targets
from .torch_program import run_program, write_program


def external_data(path: Path) -> Path:
    """The file beside an ONNX file that has its weights, if they exceed the limit of an ONNX file."""
    return path.with_name(f"{path.name}.data")


@dataclass(frozen=True, slots=True)
class Written:
    """A network that was written for every target except plans, and its differences from torch.

    path                 the ONNX file
    computes             name of the precision
    inputs, wanted       inputs of the comparison and the outputs of torch, for comparing plans
    agreements           the differences so far
    allowed, mean_share  the largest allowed difference, and the share of it that is allowed for the mean
    """

    path: Path
    computes: str
    inputs: Mapping[str, Tensor]
    wanted: Mapping[str, Tensor]
    agreements: tuple[Agreement, ...]
    allowed: float
    mean_share: float = 1.0

    @property
    def files(self) -> dict[str, Path]:
        """Files by name: the network, its weights if they are in another file, and the torch program, if any."""
        beside = (self.path, external_data(self.path), self.path.with_suffix(".pt2"))
        return {path.name: path for path in beside if path.is_file()}


def write_plain(
    path: Path, network: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], targets: Targets, *,
    tolerance: float, half: bool = False, measured: bool = False,
) -> Written:  # fmt: skip
    """Write a network that computes in single precision. Arguments and errors: see `write_onnx`."""
    wanted = reference(network, inputs, outputs)
    agreements = [write_onnx(path, network, inputs, wanted, tolerance=tolerance, half=half, measured=measured)]
    if "torch" in targets.names:
        pt2 = path.with_suffix(".pt2")
        write_program(pt2, network, inputs, outputs)
        agreements.append(compare(pt2, "torch", run_program(pt2, inputs), wanted, tolerance, 1.0, measured))
    return Written(path, "single", inputs, wanted, tuple(agreements), tolerance)


def conclude(
    folder: Path, networks: Sequence[Written], targets: Targets, say: Callable[[str], None], measured: bool
) -> Path | None:
    """Build the plans in `folder`, compare them, and with `measured` print the table of errors.

    Returns the folder, or None if there are no plans.
    Raises ExportError: a network differs too much on a target that runs here. EngineError: a plan cannot be built.
    """
    rows = [agreement for network in networks for agreement in network.agreements]
    plans = None
    try:
        _refuse(rows)
        plans = build_plans(folder, [network.path for network in networks], targets, say)
        for flavour, gpu in targets.plans():
            for one in networks:
                found = run_plan(folder, one.path, flavour, gpu, one.inputs)
                if found is not None:
                    name = f"{flavour.backend} {gpu}"
                    rows.append(compare(one.path, name, found, one.wanted, one.allowed, one.mean_share, measured=True))
        _refuse(rows)
    finally:
        for line in table(rows) if measured else ():
            say(line)
    elsewhere = [gpu for flavour, gpu in targets.plans() if not any(gpu in row.target for row in rows)]
    if measured and elsewhere:
        say(f"not run, for the card is not in this machine: plans for {', '.join(elsewhere)}")
    return plans


def _refuse(rows: Sequence[Agreement]) -> None:
    off = [row.network if row.target == "onnx" else f"{row.network} ({row.target})" for row in rows if not row.agrees]
    if off:
        raise ExportError(f"over the tolerance: {', '.join(off)}. Nothing was written. Try --dtype fp32")
