"""Targets of an export beside ONNX: backends and cards."""

from __future__ import annotations

from dataclasses import dataclass

from warpfuse.engine import device
from warpfuse.engine.errors import BackendMissing, BadInput
from warpfuse.engine.tensorrt_module import (
    TENSORRT,
    TENSORRT_RTX,
    Flavour,
    capabilities,
    capability,
    missing,
    not_installed,
)

TARGETS = ("onnx", "torch", "tensorrt-rtx", "tensorrt")
CARDS = {
    "sm75": "RTX 20",
    "sm80": "A100",
    "sm86": "RTX 30",
    "sm89": "RTX 40",
    "sm120": "RTX 50",
    "sm121": "DGX Spark",
}
"""Trade names of the cards with a compute capability."""

FIRST_WITH_BFLOAT = 80  # Turing (75) has no bfloat16 arithmetic


@dataclass(frozen=True, slots=True)
class Targets:
    """What is written.

    names  some of `TARGETS`, always with "onnx"
    gpus   compute capabilities of the TensorRT-RTX plans
    """

    names: tuple[str, ...] = ("onnx",)
    gpus: tuple[str, ...] = ()

    def plans(self) -> list[tuple[Flavour, str]]:
        """(flavour, gpu in the plan's key) of every plan of a network."""
        found = [(TENSORRT_RTX, gpu) for gpu in self.gpus]
        if TENSORRT.backend in self.names:
            found.append((TENSORRT, f"{device.name_of('cuda:0')} {capability('cuda:0')}"))
        return found


ONNX_ALONE = Targets()


def parse_targets(to: str, gpu: str | None, dtype: str = "fp16") -> Targets:
    """The targets of `--to onnx,torch` and `--gpu sm89,sm120`. This machine can write all of them.

    Raises BadInput: an unknown or repeated name, a card for which nothing can be built. BackendMissing: a package is
    not installed, or the export has to be run on the machine with the card.
    """
    names = _listed("--to", to, TARGETS, f"expected some of {', '.join(TARGETS)}")
    gpus: tuple[str, ...] = ()
    if TENSORRT_RTX.backend in names:
        reason = not_installed(TENSORRT_RTX)
        if reason is not None:
            raise BackendMissing(f"--to tensorrt-rtx: {reason}")
        gpus = _gpus(gpu)
        old = [name for name in gpus if int(name[2:]) < FIRST_WITH_BFLOAT]
        if dtype == "bf16" and old:
            raise BadInput(f"--gpu {old[0]}: {CARDS[old[0]]} has no bfloat16. Give --dtype fp16")
    elif gpu is not None:
        raise BadInput(f"--gpu {gpu}: nothing is built for a card. Add --to tensorrt-rtx, or leave --gpu out")
    if TENSORRT.backend in names:
        reason = not_installed(TENSORRT) or missing(TENSORRT, "cuda:0")
        if reason is not None:
            raise BackendMissing(
                f"--to tensorrt builds on the card itself, run it on the machine with the card: {reason}"
            )
    return Targets(tuple(name for name in TARGETS if name in names or name == "onnx"), gpus)


def _gpus(asked: str | None) -> tuple[str, ...]:
    known = capabilities(TENSORRT_RTX)
    listed = ", ".join(f"{name} ({CARDS[name]})" if name in CARDS else name for name in known)
    if asked is not None:
        return tuple(_listed("--gpu", asked, known, f"tensorrt-rtx builds for {listed}"))
    if not device.count():
        raise BadInput(f"--to tensorrt-rtx: this machine has no card, say with --gpu which it is for: {listed}")
    card = capability("cuda:0")
    if card not in known:
        name = device.name_of("cuda:0")
        raise BadInput(
            f"--to tensorrt-rtx: {name} is {card}, tensorrt-rtx builds for {listed}. Give --gpu, or --to tensorrt"
        )
    return (card,)


def _listed(flag: str, text: str, known: tuple[str, ...] | list[str], expected: str) -> list[str]:
    names = [part.strip() for part in text.split(",")]
    for number, name in enumerate(names):
        if name not in known:
            raise BadInput(f"{flag} {text}: {name!r} is not known; {expected}")
        if name in names[:number]:
            raise BadInput(f"{flag} {text}: {name!r} is there twice; {expected}")
    return names
