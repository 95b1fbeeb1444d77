"""The machine of a measurement: its description, and its peak rates."""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch

from warpfuse.engine import device as card
from warpfuse.engine.device import settle
from warpfuse.graph.runtime.context import usable_cores
from warpfuse.version import __version__

_MATRIX = 1536  # side of the square matrices: large enough for the full rate, 50 ms on two cores
_COPY_BYTES = 256 << 20  # past every cache
_ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine of a measurement.

    flops_per_s        rate of a large matrix product in the precision of the networks, the best of several
    integer_ops_per_s  rate of a matrix product of 8-bit integers in ONNX Runtime; None: not measured
    bytes_per_s        bytes read and written by a large copy, the best of several
    """

    processor: str
    cores: int
    memory_gib: float
    device: str
    gpu: str | None
    driver: str | None
    system: str
    versions: dict[str, str]
    precision: str
    flops_per_s: float
    bytes_per_s: float
    integer_ops_per_s: float | None = None

    @property
    def name(self) -> str:
        """Name of the card or the processor, in one line."""
        return f"{self.gpu} ({self.driver})" if self.gpu else f"{self.processor}, {self.cores} cores"

    @property
    def rates(self) -> str:
        """The peak rates, in one line."""
        integers = f", {self.integer_ops_per_s / 1e9:,.0f} GOP/s in int8" if self.integer_ops_per_s else ""
        return f"{self.flops_per_s / 1e9:,.0f} GFLOP/s in {self.precision}{integers}, {self.bytes_per_s / 1e9:.1f} GB/s"


def describe(device: str, threads: int) -> Machine:
    """This machine, with its rates measured with `threads` threads. Takes some seconds."""
    cuda = device.startswith("cuda")
    dtype = torch.float16 if cuda else torch.float32
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        flops, copied = matrix_rate(device, dtype), copy_rate(device)
        integers = None if cuda else integer_rate(threads)
    finally:
        torch.set_num_threads(before)
    return Machine(
        processor=_processor(),
        cores=usable_cores(),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        device=device,
        gpu=card.name_of(device) if cuda else None,
        driver=_driver() if cuda else None,
        system=f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        versions=_versions(),
        precision=str(dtype).removeprefix("torch."),
        flops_per_s=flops,
        bytes_per_s=copied,
        integer_ops_per_s=integers,
    )


def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a square matrix product."""
    side = 8192 if device.startswith("cuda") else _MATRIX
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty(side, side, dtype=dtype, device=device)
    return 2 * side**3 / _best_seconds(lambda: torch.mm(a, b, out=out), device)


def integer_rate(threads: int) -> float | None:
    """Multiplications and additions a second of a square matrix product of 8-bit integers on the processor.

    None if ONNX Runtime or onnx is not installed.
    """
    try:
        import onnxruntime
        from onnx import TensorProto, helper
    except ImportError:
        return None
    kinds = {"a": TensorProto.UINT8, "b": TensorProto.INT8, "out": TensorProto.INT32}
    a, _, out = (helper.make_tensor_value_info(name, kind, [_MATRIX, _MATRIX]) for name, kind in kinds.items())
    second = helper.make_tensor("b", kinds["b"], [_MATRIX, _MATRIX], bytes(_MATRIX * _MATRIX), raw=True)
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["a", "b"], ["out"])], "product", [a], [out], [second])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    fed = {"a": np.zeros((_MATRIX, _MATRIX), np.uint8)}
    return 2 * _MATRIX**3 / _best_seconds(lambda: session.run(None, fed), "cpu")


def copy_rate(device: str) -> float:
    """Bytes a second of a copy, read and written."""
    source = torch.zeros(_COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    return 2 * _COPY_BYTES / _best_seconds(lambda: target.copy_(source), device)


def _best_seconds(work: Callable[[], object], device: str) -> float:
    work()
    seconds = []
    for _ in range(_ROUNDS):
        settle(device)
        begun = time.perf_counter()
        work()
        settle(device)
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _driver() -> str | None:
    try:
        import pynvml

        pynvml.nvmlInit()
        version = pynvml.nvmlSystemGetDriverVersion()
    except Exception:  # noqa: BLE001  the binding's own types; without it the line lacks the driver
        return None
    return f"driver {version}"


def _versions() -> dict[str, str]:
    versions = {"warpfuse": __version__, "torch": torch.__version__}
    try:
        import onnxruntime
    except ImportError:
        return versions
    return {**versions, "onnxruntime": str(onnxruntime.__version__)}
