"""Choose the precision of the UNet: as it was exported, or 8-bit integers if they are faster on this processor."""

from collections.abc import Set
from pathlib import Path
from typing import Literal

from warpfuse.engine.bundle_file import BundleFile
from warpfuse.engine.errors import EngineError

Precision = Literal["float", "int8"]
"""float: as exported, in the type its file has."""

AskedPrecision = Literal["auto", "float", "int8"]

GAINING = ("avx512_vnni", "avx_vnni", "amx_int8")
"""Flags of processors that multiply and add four 8-bit integers in the time of one float. On others, integers are
slower."""

INTEGER_BACKEND = ("onnxruntime", "cpu")


def cpu_flags(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The processor's flags, as Linux names them; empty if there is no such file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), ()))


def gains_by(flags: Set[str]) -> str | None:
    """The flag that makes integers faster; None if there is none."""
    return next((flag for flag in GAINING if flag in flags), None)


def choose_precision(
    asked: AskedPrecision, about: BundleFile, backend: str, device: str, flags: Set[str]
) -> tuple[Precision, str]:
    """The precision of the UNet on this backend and device, and the reason for the choice.

    "auto" chooses integers if the bundle has them, the backend is ONNX Runtime on a CPU, and `flags` has one of
    `GAINING`. If asked for by name, they give correct results on any CPU. Raises EngineError if they cannot be used.
    """
    if asked == "float":
        return "float", "asked for"
    there, fits = "unet" in about.int8, (backend, device) == INTEGER_BACKEND
    if asked == "int8":
        if not there:
            raise EngineError(
                f"precision int8: bundle {about.name} has no UNet in 8-bit integers. Give --precision auto, or another"
                " bundle"
            )
        if not fits:
            raise EngineError(
                f"precision int8: 8-bit integers are run by {INTEGER_BACKEND[0]} on {INTEGER_BACKEND[1]}, got {backend}"
                f" on {device}. Give --precision auto, or --backend {INTEGER_BACKEND[0]} --device {INTEGER_BACKEND[1]}"
            )
        return "int8", "asked for"
    if not there:
        return "float", "the bundle has no integers"
    if not fits:
        return "float", f"integers are for {INTEGER_BACKEND[0]} on {INTEGER_BACKEND[1]}"
    flag = gains_by(flags)
    return ("int8", f"faster by {flag}") if flag else ("float", f"the processor has none of {', '.join(GAINING)}")
