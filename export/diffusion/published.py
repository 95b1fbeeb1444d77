"""The published architectures, as configurations of diffusers and transformers. Single files do not contain them.

Sources: config.json of runwayml/stable-diffusion-v1-5, stabilityai/stable-diffusion-2-1, sd-turbo,
stable-diffusion-xl-base-1.0, sdxl-turbo and SimianLuo/LCM_Dreamshaper_v7. Defaults of the classes are left out. They
are copied here because diffusers fetches them from the hub, and a file has to be readable without it.
"""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]

_BETAS: Config = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
_TRAILING: Config = {**_BETAS, "prediction_type": "epsilon", "timestep_spacing": "trailing", "steps_offset": 1}
SCHEDULERS: dict[str, Config] = {
    "sd15": {
        "_class_name": "PNDMScheduler", **_BETAS, "prediction_type": "epsilon", "steps_offset": 1,
        "skip_prk_steps": True, "set_alpha_to_one": False,
    },
    "sd21": {
        "_class_name": "DDIMScheduler", **_BETAS, "prediction_type": "v_prediction", "steps_offset": 1,
        "clip_sample": False, "set_alpha_to_one": False,
    },
    "sd-turbo": {"_class_name": "EulerDiscreteScheduler", **_TRAILING},
    "sdxl": {
        "_class_name": "EulerDiscreteScheduler", **_BETAS, "prediction_type": "epsilon", "steps_offset": 1,
        "timestep_spacing": "leading",
    },
    "sdxl-turbo": {"_class_name": "EulerAncestralDiscreteScheduler", **_TRAILING},
    "lcm": {"_class_name": "LCMScheduler", **_BETAS, "prediction_type": "epsilon", "timestep_spacing": "leading"},
}  # fmt: skip

_ATTENTION_DOWN = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
_ATTENTION_UP = ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3
_SD1: Config = {
    "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768, "attention_head_dim": 8,
    "down_block_types": _ATTENTION_DOWN, "up_block_types": _ATTENTION_UP, "sample_size": 64,
}  # fmt: skip
_SD2: Config = {
    **_SD1, "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True,
    "upcast_attention": True,
}  # fmt: skip
_XL: Config = {
    "block_out_channels": [320, 640, 1280], "cross_attention_dim": 2048, "attention_head_dim": [5, 10, 20],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "sample_size": 128,
    "transformer_layers_per_block": [1, 2, 10], "use_linear_projection": True, "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
UNETS: dict[str, Config] = {
    "sd15": _SD1,
    "sd21": {**_SD2, "sample_size": 96},
    "sd-turbo": {**_SD2, "upcast_attention": None},
    "sdxl": _XL,
    "sdxl-turbo": {**_XL, "sample_size": 64},
    "lcm": {**_SD1, "time_cond_proj_dim": 256},
}

VAE: Config = {
    "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 4, "sample_size": 512,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
    "scaling_factor": 0.18215,
}  # fmt: skip
VAE_XL: Config = {**VAE, "scaling_factor": 0.13025, "sample_size": 1024, "force_upcast": True}

_CLIP: Config = {"vocab_size": 49408, "max_position_embeddings": 77, "eos_token_id": 2, "bos_token_id": 0}
CLIP_L: Config = {
    **_CLIP, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "hidden_act": "quick_gelu", "projection_dim": 768,
}  # fmt: skip
CLIP_H: Config = {
    **_CLIP, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16,
    "hidden_act": "gelu", "projection_dim": 512,
}  # fmt: skip
CLIP_BIG_G: Config = {
    **_CLIP, "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
    "hidden_act": "gelu", "projection_dim": 1280,
}  # fmt: skip


def text_configs(family: str) -> list[Config]:
    """Configurations of a family's text encoders, in order. If there are two, the second has a projection."""
    if family in ("sdxl", "sdxl-turbo"):
        return [CLIP_L, CLIP_BIG_G]
    return [CLIP_H if family in ("sd21", "sd-turbo") else CLIP_L]


def pipeline(family: str) -> str:
    """Class name of the family's pipeline, as in diffusers' model_index.json."""
    if family in ("sdxl", "sdxl-turbo"):
        return "StableDiffusionXLPipeline"
    return "LatentConsistencyModelPipeline" if family == "lcm" else "StableDiffusionPipeline"
