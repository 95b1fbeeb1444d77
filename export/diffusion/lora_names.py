"""Which layer a LoRA file means by a key: the spellings of kohya, PEFT and diffusers."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import nn

# What a key ends with -> the role of its tensor. PEFT calls down A and up B.
_ROLES = {
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".alpha": "alpha",
}
# Inside a residual block and around it, the original implementation's names -> those of diffusers.
_RESNET = {
    "in_layers_2": "conv1", "out_layers_3": "conv2", "emb_layers_1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}  # fmt: skip
_OUTSIDE = {
    "input_blocks_0_0": "conv_in", "out_2": "conv_out", "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2", "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
}  # fmt: skip


class Layers:
    """The layers of a checkpoint that a LoRA can change, found by any spelling.

    unet, text      the networks; `text` in their order
    per_block       residual blocks of a level of the UNet, for the numbering of the original implementation
    """

    def __init__(self, unet: nn.Module, text: tuple[nn.Module, ...], per_block: int) -> None:
        self._per_block = per_block
        self._of: dict[str, nn.Module] = {}
        for name, layer in _changeable(unet).items():
            self._of[f"unet_{name}"] = layer
        for number, encoder in enumerate(text, 1):
            for name, layer in _changeable(encoder).items():
                plain = name.removeprefix("text_model_")  # transformers 5.6 dropped it for one of the two classes
                self._of[f"text{number}_{plain}"] = layer

    def find(self, stem: str) -> nn.Module | None:
        """The layer of a key without its ending, or None."""
        return self._of.get(self._spelled(stem))

    def of_text(self, stem: str) -> bool:
        """Whether the layer of a key is of a text encoder."""
        return self._spelled(stem).startswith("text")

    def _spelled(self, stem: str) -> str:
        stem = stem.removeprefix("base_model.model.").replace(".processor.", ".").replace(".", "_")
        for prefix, number in (("te1", 1), ("te2", 2), ("te", 1)):
            if stem.startswith(f"lora_{prefix}_"):
                return f"text{number}_{stem.removeprefix(f'lora_{prefix}_').removeprefix('text_model_')}"
        for prefix, number in (("text_encoder_2_", 2), ("text_encoder_", 1)):
            if stem.startswith(prefix):
                return f"text{number}_{stem.removeprefix(prefix).removeprefix('text_model_')}"
        name = stem.removeprefix("lora_unet_").removeprefix("unet_")
        name = re.sub(r"_to_out$", "_to_out_0", name)
        return f"unet_{self._original(name)}"

    def _original(self, name: str) -> str:
        """A name of the original implementation in that of diffusers; any other is given back."""
        if name in _OUTSIDE:
            return _OUTSIDE[name]
        if match := re.fullmatch(r"(input|output)_blocks_(\d+)_(\d+)_(.+)", name):
            side, number, part, rest = match[1], int(match[2]), int(match[3]), match[4]
            place = number - 1 if side == "input" else number
            level, step = divmod(place, self._per_block + 1)
            block = f"{'down' if side == 'input' else 'up'}_blocks_{level}"
            if rest == "op":
                return f"{block}_downsamplers_0_conv"
            if rest == "conv":
                return f"{block}_upsamplers_0_conv"
            return f"{block}_{_inside(rest, part, step)}"
        if match := re.fullmatch(r"middle_block_(\d)_(.+)", name):
            return f"mid_block_{_inside(match[2], int(match[1]) % 2, int(match[1]) // 2)}"
        return name


def roles(keys: Mapping[str, object]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """({stem: {role: key}}, the keys that are none of a LoRA's)."""
    found: dict[str, dict[str, str]] = {}
    odd = []
    for key in keys:
        ending = next((ending for ending in _ROLES if key.endswith(ending)), None)
        if ending is None:
            odd.append(key)
        else:
            found.setdefault(key.removesuffix(ending), {})[_ROLES[ending]] = key
    return found, odd


def _inside(rest: str, attention: int, step: int) -> str:
    if attention:
        return f"attentions_{step}_{rest}"
    return f"resnets_{step}_{_RESNET.get(rest, rest)}"


def _changeable(network: nn.Module) -> dict[str, nn.Module]:
    kinds = (nn.Linear, nn.Conv2d)
    return {name.replace(".", "_"): layer for name, layer in network.named_modules() if isinstance(layer, kinds)}
