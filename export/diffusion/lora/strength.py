"""The factor of an adapter's product: alpha / rank, or alpha / sqrt(rank) (Kalajdzievski 2023).

kohya, OneTrainer and LyCORIS have alpha among the tensors of a layer. PEFT has it in adapter_config.json beside the
file, diffusers in the file's metadata. These can have an alpha for single layers, found by the end of the layer's name.
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
# These initialisations of an adapter change the weights of the model too, so the file is incomplete without the model.
_CHANGES_THE_MODEL = re.compile(r"pissa|olora|corda|loftq|orthogonal|lora_ga", re.IGNORECASE)


class Strengths:
    """alpha / rank of the layers of a file.

    name     of the file, for errors
    configs  PEFT's configuration by part: "unet", "text_encoder", "text_encoder_2", or "" for all

    Raises ExportError for an adapter that needs the model of its training, and for values that are no numbers.
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

        alpha  from the layer's tensors; None: from the configuration
        rank   from the shapes of its tensors; None: from the configuration
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
    """The strengths of a file, from its metadata or the configuration beside it. Raises ExportError."""
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
    """Diffusers' flat metadata, with keys such as "unet.lora_alpha", by part."""
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
    """The value whose key matches the end of a layer's name, as in PEFT; else `otherwise`."""
    for key, value in (pattern or {}).items():
        try:
            if re.match(rf"(.*\.)?({key})$", layer):
                return value
        except re.error:
            continue
    return otherwise
