"""Checkpoints in one file with the keys of the original implementation, converted from diffusers' keys."""

import torch
from safetensors.torch import save_file

_IN_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_AROUND = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def original_name(name, per_block, attended_up):
    """A layer of a UNet of diffusers -> the original's."""
    parts = name.split(".")
    if parts[0] == "mid_block":
        place = 1 if parts[1] == "attentions" else 2 * int(parts[2])
        return f"middle_block.{place}.{inside(parts[1], parts[3:])}"
    if parts[0] not in ("down_blocks", "up_blocks"):
        stem = next(stem for stem in _AROUND if name == stem or name.startswith(f"{stem}."))
        return _AROUND[stem]
    level, kind, step, rest = int(parts[1]), parts[2], int(parts[3]), parts[4:]
    each = per_block + 1
    if parts[0] == "down_blocks":
        if kind == "downsamplers":
            return f"input_blocks.{each * level + each}.0.op"
        return f"input_blocks.{each * level + step + 1}.{int(kind == 'attentions')}.{inside(kind, rest)}"
    if kind == "upsamplers":
        return f"output_blocks.{each * level + per_block}.{1 + attended_up[level]}.conv"
    return f"output_blocks.{each * level + step}.{int(kind == 'attentions')}.{inside(kind, rest)}"


def inside(kind, rest):
    return ".".join(rest) if kind == "attentions" else _IN_RESNET[rest[0]]


def single_file(checkpoint, path):
    """Every tensor in the keys of the original."""
    attended_up = ["CrossAttn" in kind for kind in checkpoint.unet.config.up_block_types]
    tensors = {f"first_stage_model.{key}": value for key, value in original_vae(checkpoint.vae).items()}
    for key, tensor in checkpoint.unet.state_dict().items():
        layer, _, leaf = key.rpartition(".")
        if layer == "time_embedding.cond_proj":
            tensors[f"model.diffusion_model.time_embed.cond_proj.{leaf}"] = tensor
            continue
        tensors[f"model.diffusion_model.{original_name(layer, 1, attended_up)}.{leaf}"] = tensor
    prefixes = ("conditioner.embedders.0", "conditioner.embedders.1")
    for encoder, prefix in zip(
        checkpoint.text, prefixes if checkpoint.family.xl else ("cond_stage_model",), strict=True
    ):
        if checkpoint.family.name == "sd21" or prefix == prefixes[1]:
            tensors |= {f"{prefix}.model.{key}": tensor for key, tensor in open_clip(encoder.state_dict()).items()}
            continue
        for key, tensor in encoder.state_dict().items():
            tensors[f"{prefix}.transformer.text_model.{key.removeprefix('text_model.')}"] = tensor
    save_file({key: tensor.clone().contiguous() for key, tensor in tensors.items()}, path)


def open_clip(state):
    """The tensors of a text encoder in the keys of OpenCLIP: queries, keys and values in one."""
    state = {key.removeprefix("text_model."): tensor for key, tensor in state.items()}
    found = {"text_projection": state["text_projection.weight"].T} if "text_projection.weight" in state else {}
    for ours_key, tensor in state.items():
        key = ours_key
        for ours, theirs in {
            "embeddings.token_embedding.weight": "token_embedding.weight",
            "embeddings.position_embedding.weight": "positional_embedding",
            "final_layer_norm": "ln_final",
            "encoder.layers": "transformer.resblocks",
            "self_attn.out_proj": "attn.out_proj",
            "layer_norm": "ln_",
            "mlp.fc1": "mlp.c_fc",
            "mlp.fc2": "mlp.c_proj",
        }.items():
            key = key.replace(ours, theirs)
        if ".q_proj." in key:
            parts = [state[ours_key.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            found[key.replace("self_attn.q_proj.", "attn.in_proj_")] = torch.cat(parts)
        elif "self_attn" not in key and key != "text_projection.weight":
            found[key] = tensor
    return found


def original_vae(vae):
    """The tensors of an autoencoder in the keys of the original."""
    around = {"conv_norm_out": "norm_out", "quant_conv": "quant_conv"}
    attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    levels = len(vae.config.block_out_channels)
    found = {}
    for key, tensor in vae.state_dict().items():
        name = key.replace("conv_shortcut", "nin_shortcut")
        for ours, theirs in around.items():
            name = name.replace(ours, theirs)
        name = name.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
        if "mid_block.attentions.0" in name:
            for ours, theirs in attention.items():
                name = name.replace(f"attentions.0.{ours}", f"attn_1.{theirs}")
            name = name.replace("mid_block", "mid")
            if tensor.dim() == 2:
                tensor = tensor[:, :, None, None]
        parts = name.split(".")
        if parts[1] in ("down_blocks", "up_blocks"):
            side = parts[1].removesuffix("_blocks")
            level = int(parts[2]) if side == "down" else levels - 1 - int(parts[2])
            sampler = "downsample.conv" if side == "down" else "upsample.conv"
            rest = f"block.{parts[4]}.{'.'.join(parts[5:])}" if parts[3] == "resnets" else f"{sampler}.{parts[-1]}"
            name = f"{parts[0]}.{side}.{level}.{rest}"
        found[name] = tensor
    return found
