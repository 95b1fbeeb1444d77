"""The layer and the role of a tensor by its key, in files of kohya, PEFT, diffusers, OneTrainer, LyCORIS, ComfyUI."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

# Ending of a key -> role of its tensor in `forms`. PEFT calls down A and up B, with or without the adapter's name.
_ENDINGS = {
    r"\.lora_down\.weight|[._]lora\.down\.weight|\.lora_linear_layer\.down\.weight": "down",
    r"\.lora_up\.weight|[._]lora\.up\.weight|\.lora_linear_layer\.up\.weight": "up",
    r"\.lora_A(\.[^.]+)?\.weight": "down",
    r"\.lora_B(\.[^.]+)?\.weight": "up",
    r"\.lora_B(\.[^.]+)?\.bias|\.lora_up\.bias": "up_bias",
    r"\.lora_mid\.weight": "core",
    r"\.hada_(w[12]_[ab]|t[12])(\.weight)?": "hada_{}",
    r"\.lokr_(w[12](?:_[ab])?|t2)(\.weight)?": "lokr_{}",
    r"\.(diff|w_norm)": "diff",
    r"\.(diff_b|b_norm)": "diff_b",
    r"\.dora_scale": "magnitude",
    r"\.lora_magnitude_vector(\.[^.]+)?(\.weight)?": "output_magnitude",
    r"\.alpha": "alpha",
    r"\.scalar": "scalar",
    r"\.on_input": "on_input",
    r"\.ia3_l(\.[^.]+)?": "ia3_l",
    r"\.weight": "weight",
}
_ROLES = [(re.compile(f"({ending})$"), role) for ending, role in _ENDINGS.items()]
# Pattern of other keys in files -> what they belong to.
_KINDS = {
    r"^bundle_emb\.": "an embedding that is bundled with it (--embedding takes it)",
    r"(^|\.)(emb_params|string_to_param.*)$|^clip_[lg]$": "an embedding (--embedding takes it)",
    r"\.oft_|\.oft_r": "OFT",
    r"\.boft_": "BOFT",
    r"\.(a1|a2|b1|b2|bm)\.weight$": "GLoRA",
    r"\.(q_layer|p_layer|lambda_layer|base_[qp])": "T-LoRA",
    r"\.bias_(indices|values|size)$": "a sparse bias",
    r"\.vera_|vera_lambda": "VeRA",
    r"\.lora_embedding_[AB]": "a LoRA of the words",
    r"modules_to_save": "a layer that was trained whole",
    r"(double|single)_blocks|single_transformer_blocks": "Flux or another transformer",
    r"joint_blocks|^transformer\.|lora_transformer_": "SD3 or another transformer",
    r"lora_te3_|^t5|text_encoder_3": "a T5 text encoder",
    r"motion_modules|temporal": "a motion module",
    r"ip_adapter|image_proj": "an IP-Adapter",
    r"control_model|input_hint|zero_conv": "a ControlNet",
}
# Names in the original implementation -> names in diffusers, within a residual block and outside.
_RESNET = {
    "in_layers_2": "conv1", "out_layers_3": "conv2", "emb_layers_1": "time_emb_proj",
    "skip_connection": "conv_shortcut", "in_layers_0": "norm1", "out_layers_0": "norm2",
}  # fmt: skip
_OUTSIDE = {
    "input_blocks_0_0": "conv_in", "out_0": "conv_norm_out", "out_2": "conv_out",
    "time_embed_0": "time_embedding_linear_1", "time_embed_2": "time_embedding_linear_2",
    "label_emb_0_0": "add_embedding_linear_1", "label_emb_0_2": "add_embedding_linear_2",
}  # fmt: skip


# Prefix of a layer's name in files -> number of its text encoder. The first match counts.
_TEXT_PREFIXES = {
    "text_encoders_clip_l_transformer_": 1, "text_encoders_clip_g_transformer_": 2, "text_encoders_clip_l_": 1,
    "text_encoders_clip_g_": 2, "clip_l_transformer_": 1, "clip_g_transformer_": 2, "clip_l_": 1, "clip_g_": 2,
    "clip_h_transformer_": 1, "clip_h_": 1, "lora_te1_": 1, "lora_te2_": 2, "lora_te_": 1, "text_encoder_2_": 2,
    "text_encoder_": 1, "cond_stage_model_transformer_": 1, "lycoris_text_model_": 1, "text_model_": 1,
}  # fmt: skip
_UNET_PREFIXES = ("lora_unet_", "unet_", "model_diffusion_model_", "diffusion_model_", "lycoris_", "")
# Old names in diffusers for the projections of a text encoder, which are those of the UNet.
_OLD_PROJECTIONS = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj", "to_out_0": "out_proj"}


class LayerNames:
    """Finds the layers of a checkpoint by their names in all kinds of files.

    unet, text  the networks
    per_block   residual blocks of a level of the UNet, for the numbering of the original implementation
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
        """The layer for a key without its ending, or None."""
        return self._of.get(self._spelled(stem))

    def of_text(self, stem: str) -> bool:
        """The layer for a key without its ending is of a text encoder."""
        return self._spelled(stem).startswith("text")

    def reads_the_prompt(self, stem: str) -> bool:
        """The key is for a layer of the UNet with the width of prompts, which differs between architectures."""
        return re.search(r"^unet_.*_attn2_to_[kv]$", self._spelled(stem)) is not None

    def _spelled(self, stem: str) -> str:
        stem = stem.removeprefix("base_model.model.").replace(".processor.", ".").replace(".", "_")
        for prefix, number in _TEXT_PREFIXES.items():
            if stem.startswith(prefix):
                name = stem.removeprefix(prefix).removeprefix("text_model_")
                for old, new in _OLD_PROJECTIONS.items():
                    name = re.sub(rf"_self_attn_{old}$", f"_self_attn_{new}", name)
                return f"text{number}_{name}"
        prefix = next(prefix for prefix in _UNET_PREFIXES if stem.startswith(prefix))
        return f"unet_{self._original(re.sub(r'_to_out$', '_to_out_0', stem.removeprefix(prefix)))}"

    def _original(self, name: str) -> str:
        """A name of the original implementation as in diffusers. Any other name is returned unchanged."""
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


def roles(keys: Iterable[str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """({stem: {role: key}}, keys that belong to no adapter). A stem is a key without its ending."""
    found: dict[str, dict[str, str]] = {}
    odd = []
    for key in keys:
        matches = ((pattern.search(key), role) for pattern, role in _ROLES)
        match, role = next(((match, role) for match, role in matches if match), (None, ""))
        if match is None or kind_of(key):
            odd.append(key)
        else:
            within = next((group for group in match.groups()[1:] if group), "")
            found.setdefault(key[: match.start()], {})[role.format(within)] = key
    for stem in [stem for stem, named in found.items() if "weight" in named and "on_input" not in named]:
        odd.append(found[stem].pop("weight"))  # an IA3 has a "weight", but so has any other file
        if not found[stem]:
            del found[stem]
    return found, odd


def kind_of(key: str) -> str | None:
    """What a key belongs to, if not to a supported adapter; else None."""
    return next((kind for pattern, kind in _KINDS.items() if re.search(pattern, key)), None)


def _inside(rest: str, attention: int, step: int) -> str:
    if attention:
        return f"attentions_{step}_{rest}"
    return f"resnets_{step}_{_RESNET.get(rest, rest)}"


def _changeable(network: nn.Module) -> dict[str, nn.Module]:
    kinds = (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm)
    return {name.replace(".", "_"): layer for name, layer in network.named_modules() if isinstance(layer, kinds)}
