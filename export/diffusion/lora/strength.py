"""How strongly the halves of an adapter are taken: alpha / rank, or alpha / sqrt(rank) (Kalajdzievski 2023).

kohya, OneTrainer and LyCORIS have alpha among the tensors of a layer. PEFT has it in adapter_config.json beside the
file, diffusers in the file's own metadata; there a layer may have an alpha of its own, found by the end of its name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...onnx_writing import ExportError

_PARTS = ("unet", "text_encoder", "text_encoder_2")
_INSIDE = "lora_adapter_metadata"
_BESIDE = "adapter_config.json"
# How these initialise an adapter changes the weights of the model too: the file alone is the smaller half.
_CHANGES_THE_MODEL = re.compile(r"pissa|olora|corda|loftq|orthogonal|lora_ga", re.IGNORECASE)


class Strengths:
    """alpha / rank of the layers of a file.

    configs  part ("unet", "text_encoder", "text_encoder_2", or "" for all) -> what PEFT's configuration of it says

    Raises ExportError: an adapter that needs the model it was made beside, or numbers that are none.
    """

    def __init__(self, name: str, configs: Mapping[str, Mapping[str, Any]]) -> None:
        self._configs = configs
        for config in configs.values():
            how = config.get("init_lora_weights")
            if isinstance(how, str) and _CHANGES_THE_MODEL.match(how):
                raise ExportError(
                    f"--lora {name}: its init_lora_weights {how!r} changed the model beside it too. Save it anew with "
                    "PEFT's path_initial_model_for_weight_conversion, which makes a LoRA of it"
                )
            try:
                for number in (_alpha(config), *(config.get("alpha_pattern") or {}).values()):
                    float(1 if number is None else number)
                for rank in (config.get("r") or 1, *(config.get("rank_pattern") or {}).values()):
                    float(rank)
            except (TypeError, ValueError, AttributeError) as error:
                raise ExportError(f"--lora {name}: what it says of alpha cannot be read: {error}") from None

    def of(self, stem: str, alpha: float | None, rank: int | None) -> float:
        """alpha / rank of a layer.

        alpha  as the layer's tensors have it
        rank   as the shapes of its tensors have it; PEFT divides by the configuration's where they have none
        """
        if alpha is not None:
            return alpha / rank if rank else 1.0
        part, config = next(
            ((part, self._configs[part]) for part in (*_PARTS, "") if self._holds(part, stem)), ("", {})
        )
        layer = re.sub(r"^(base_model\.model\.)?", "", stem).removeprefix(f"{part}.")
        if rank is None:
            rank = _of_layer(config.get("rank_pattern"), layer, config.get("r"))
        alpha = _of_layer(config.get("alpha_pattern"), layer, _alpha(config))
        if alpha is None or not rank:
            return 1.0
        return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)

    def _holds(self, part: str, stem: str) -> bool:
        return part in self._configs and (not part or stem.removeprefix("base_model.model.").startswith(f"{part}."))


def strengths(path: Path, metadata: Mapping[str, str]) -> Strengths:
    """Those of a file, by its metadata or by what lies beside it. Raises ExportError."""
    beside = path.parent / _BESIDE
    try:
        if _INSIDE in metadata:
            return Strengths(path.name, _by_part(json.loads(metadata[_INSIDE])))
        if beside.is_file():
            return Strengths(path.name, {"": dict(json.loads(beside.read_text(encoding="utf-8")))})
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise ExportError(f"--lora {path.name}: what it says of alpha cannot be read: {error!r}") from None
    return Strengths(path.name, {})


def _by_part(flat: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """diffusers' flat metadata, "unet.lora_alpha", by part."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in flat.items():
        part, _, name = key.partition(".")
        if part in _PARTS:
            found.setdefault(part, {})[name] = value
        else:
            found.setdefault("", {})[key] = value
    return found


def _alpha(config: Mapping[str, Any]) -> Any:
    return config.get("lora_alpha", config.get("alpha"))


def _of_layer(pattern: Mapping[str, Any] | None, layer: str, otherwise: Any) -> Any:
    """The value whose key the name of a layer ends with, as PEFT finds it."""
    for key, value in (pattern or {}).items():
        try:
            if re.match(rf"(.*\.)?({key})$", layer):
                return value
        except re.error:
            continue
    return otherwise
