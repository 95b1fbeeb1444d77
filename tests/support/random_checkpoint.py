"""Checkpoints of every family in the layout of diffusers, with seeded random weights: for tests and benches.

Small, or of the published architecture: what a card runs in the same time as the real one, without downloading it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from warpfuse.export.diffusion import published
from warpfuse.export.diffusion.families import WORKING, refused

_WORDS = ("ink", "oil", "blue", "paint")  # merged into one token each; the rest of a prompt is spelled in bytes
_END = "<|endoftext|>"


def write_random_checkpoint(folder: Path, family: str, *, small: bool = True, seed: int = 0) -> Path:
    """Write a checkpoint of a family into `folder` and return it.

    small  a few layers of a few channels, 1 MB or so, in place of the published architecture

    Raises ExportError for a family that does not exist.
    """
    import diffusers
    import transformers

    unet_class: Any = diffusers.UNet2DConditionModel
    vae_class: Any = diffusers.AutoencoderKL
    if family not in WORKING:
        raise refused(family)
    torch.manual_seed(seed)
    texts = published.text_configs(family)
    parts: dict[str, list[str]] = {
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", published.SCHEDULERS[family]["_class_name"]],
    }
    unet = _small_unet(published.UNETS[family]) if small else published.UNETS[family]
    unet_class(**unet).save_pretrained(folder / "unet")
    vae = published.VAE_XL if len(texts) == 2 else published.VAE
    vae_class(**(_small_vae(vae) if small else vae)).save_pretrained(folder / "vae")
    for number, config in enumerate(texts):
        ending = f"_{number + 1}" if number else ""
        name = "CLIPTextModelWithProjection" if number else "CLIPTextModel"
        last = write_tokenizer(folder / f"tokenizer{ending}", pad="!" if number else _END)
        sized = {**config, **(_small_text(last) if small else {}), "eos_token_id": last}
        getattr(transformers, name)(transformers.CLIPTextConfig(**sized)).save_pretrained(
            folder / f"text_encoder{ending}"
        )
        parts[f"text_encoder{ending}"] = ["transformers", name]
        parts[f"tokenizer{ending}"] = ["transformers", "CLIPTokenizer"]
    _write_json(folder / "scheduler" / "scheduler_config.json", published.SCHEDULERS[family])
    _write_json(folder / "model_index.json", {"_class_name": published.pipeline(family), **parts})
    return folder


def write_tokenizer(folder: Path, pad: str = _END) -> int:
    """Write vocab.json and merges.txt of a byte-pair tokenizer like CLIP's with a few words; the id of its last token.

    "!" has the id 0, as in CLIP's.
    """
    characters = _byte_characters()
    merges: list[tuple[str, str]] = []
    vocabulary = [*characters, *(f"{character}</w>" for character in characters)]
    for word in _WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            if (pieces[0], pieces[1]) not in merges:
                merges.append((pieces[0], pieces[1]))
                vocabulary.append(pieces[0] + pieces[1])
            pieces[:2] = [pieces[0] + pieces[1]]
    vocabulary += ["<|startoftext|>", _END]
    _write_json(folder / "vocab.json", {token: number for number, token in enumerate(vocabulary)})
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    described = {"bos_token": "<|startoftext|>", "eos_token": _END, "unk_token": _END, "pad_token": pad}
    _write_json(
        folder / "tokenizer_config.json", {**described, "tokenizer_class": "CLIPTokenizer", "model_max_length": 77}
    )
    return len(vocabulary) - 1


def _byte_characters() -> list[str]:
    """A printable character for each byte: itself, or one from 256 on. "!" is the first."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in plain] + [chr(256 + n) for n in range(256 - len(plain))]


def _small_unet(published_config: published.Config) -> dict[str, Any]:
    levels = len(published_config["block_out_channels"])
    heads = published_config["attention_head_dim"]
    small = {
        **published_config,
        "block_out_channels": [32, 32, 64, 64][:levels],
        "cross_attention_dim": 64 if "addition_embed_type" in published_config else 32,
        "attention_head_dim": 4 if isinstance(heads, int) else [2, 2, 4, 4][:levels],
        "layers_per_block": 1,
        "norm_num_groups": 8,
    }
    if "addition_embed_type" in small:
        small |= {"transformer_layers_per_block": [1, 1, 2], "addition_time_embed_dim": 8}
        small |= {"projection_class_embeddings_input_dim": 32 + 6 * 8}
    if "time_cond_proj_dim" in small:
        small["time_cond_proj_dim"] = 16
    return small


def _small_vae(published_config: published.Config) -> dict[str, Any]:
    return {**published_config, "block_out_channels": [8, 16, 16, 16], "layers_per_block": 1, "norm_num_groups": 4}


def _small_text(last: int) -> dict[str, Any]:
    return {
        "vocab_size": last + 1, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "projection_dim": 32,
    }  # fmt: skip


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
