"""Hints: inputs of the UNet that are computed from control maps, by a ControlNet's encoder or a T2I-Adapter.

They do not depend on the noise level, so they are computed once a frame, whatever the number of steps. Their scales at
each level are in the schedule of a row (`schedule.py`).
"""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from warpfuse.engine.bundle_file import NetworkName
from warpfuse.engine.bundle_parts import ADAPTER_SCALE, CONTROL_SCALE, FEATURES, HINT, Control
from warpfuse.engine.contract import Engine, TensorSpec
from warpfuse.engine.errors import BundleError
from warpfuse.stages.controls.settings import check_controls, stage_of
from warpfuse.stages.frame import Frame, Hints, Picture
from warpfuse.stages.stage import Opening, Stage

_TAKEN = {"controlnet": (HINT, CONTROL_SCALE), "adapter": (FEATURES, ADAPTER_SCALE)}


def open(opening: Opening) -> Stage:
    """The stage of a run. Raises BadInput."""
    known = opening.bundle.about.controls
    check_controls(opening.config.controls, known)
    places = {control.name: f"control_{place}" for place, control in enumerate(known)}
    networks = {name: opening.network(cast(NetworkName, places[name])) for name in opening.config.controls}
    return Hint(known, networks)


class Hint(Stage):
    """The map of each control -> its hint (ControlNet) or features (T2I-Adapter).

    Its inputs have the names of the stages that make the maps (`stage_of`).

    known     controls of the bundle
    networks  networks of the controls that the run uses, by name; owned and closed
    """

    def __init__(self, known: Sequence[Control], networks: Mapping[str, Engine]) -> None:
        self._outputs = {control.name: _TAKEN[control.form][0] for control in known}
        self._networks = networks

    def __call__(self, **maps: Picture) -> Hints:
        """One run of each network."""
        given = {}
        for name, engine in self._networks.items():
            given[name] = engine({"rgb": maps[stage_of(name)].rgb})[self._outputs[name]].clone()  # borrowed memory
        return Hints(_stamped_by(maps).stamp, given)

    def held(self, **maps: Frame) -> Frame:
        """A bare frame: the hint of a held frame is not used."""
        return Frame(_stamped_by(maps).stamp)

    def close(self) -> None:
        """Close every network."""
        for engine in self._networks.values():
            engine.close()


class HintInputs:
    """Arranges the hints of a frame as inputs of the UNet of a bundle with controls.

    A control that the run does not use gets zeros; its scale is 0.
    """

    def __init__(self, known: Sequence[Control], inputs: Sequence[TensorSpec], device: torch.device) -> None:
        """inputs: those of the UNet. Raises BundleError unless they fit the controls that the bundle lists."""
        shapes = {spec.name: spec for spec in inputs}
        self._columns: dict[str, list[str]] = {}
        self._nothing: dict[str, Tensor] = {}
        for form, (name, scale) in _TAKEN.items():
            names = [control.name for control in known if control.form == form]
            for wanted in (name, scale):
                _check_columns(wanted, shapes.get(wanted), len(names))
            if names:
                spec = shapes[name]
                self._columns[name] = names
                size = [cast(int, side) for side in spec.shape[2:]]
                self._nothing[name] = torch.zeros(1, *size, dtype=getattr(torch, spec.dtype), device=device)

    def __call__(self, hints: Frame | None) -> dict[str, Tensor]:
        """`hint` [1, n, C, h, w] and `features` [1, m, F], newly allocated. hints: the output of `Hint`, or None."""
        given = {} if hints is None else hints.tensors
        return {
            name: torch.stack([given.get(control, self._nothing[name]) for control in controls], 1)
            for name, controls in self._columns.items()
        }


def _check_columns(name: str, spec: TensorSpec | None, count: int) -> None:
    found = 0 if spec is None else spec.shape[1]
    if found != count:
        raise BundleError(f"unet: '{name}' is of {found} controls, the bundle lists {count}. Export the bundle again")


def _stamped_by(maps: Mapping[str, Frame]) -> Frame:
    return next(iter(maps.values()))
