"""IP-Adapters with random weights in the layout of the published files, for the checkpoints of `random_checkpoint`.

With torch's default weights the output hardly depends on the input, so keys and values have larger weights. So results
at scale 0 and 1 differ clearly.
"""

import torch

ENCODER = {
    "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 56,
    "patch_size": 14, "projection_dim": 48, "hidden_act": "gelu",
}  # fmt: skip
TOKENS = {"plain": 4, "plus": 16, "full": (56 // 14) ** 2 + 1}


def write_encoder(folder, seed=5, **changes):
    """A CLIPVisionModelWithProjection in the layout of transformers."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(seed)
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**{**ENCODER, **changes}))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and "embedding" not in name:
                weight.normal_(0, weight.shape[1] ** -0.5)
        model.vision_model.embeddings.patch_embedding.weight.normal_(0, 0.05)
    model.save_pretrained(folder)
    return folder


def adapter_tensors(checkpoint_folder, kind="plain", seed=6, **changes):
    """Name -> tensor of a published file: `image_proj.*` and `ip_adapter.N.to_k_ip.weight`."""
    from diffusers import UNet2DConditionModel

    sizes = {**ENCODER, **changes}
    unet = UNet2DConditionModel.from_pretrained(checkpoint_folder / "unet", low_cpu_mem_usage=False)
    width, random = unet.config.cross_attention_dim, torch.Generator().manual_seed(seed)

    def drawn(*shape, share=1.0):
        return torch.randn(*shape, generator=random) * share * shape[-1] ** -0.5

    tensors = {}
    layers = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    for place, name in enumerate(layers):
        layer = unet.get_submodule(name.removesuffix(".processor"))
        for part, linear in (("to_k_ip", layer.to_k), ("to_v_ip", layer.to_v)):
            tensors[f"ip_adapter.{2 * place + 1}.{part}.weight"] = drawn(*linear.weight.shape, share=4)
    return tensors | {f"image_proj.{name}": tensor for name, tensor in _projection(kind, width, sizes, drawn).items()}


def _projection(kind, width, sizes, drawn):
    norm = {"norm.weight": torch.ones(width), "norm.bias": torch.zeros(width)}
    if kind == "plain":
        pooled = sizes["projection_dim"]
        return {"proj.weight": drawn(4 * width, pooled), "proj.bias": drawn(4 * width), **norm}
    inner = sizes["hidden_size"]
    if kind == "full":
        ends = {"proj.3.weight": torch.ones(width), "proj.3.bias": torch.zeros(width)}
        first = {"proj.0.weight": drawn(inner, inner), "proj.0.bias": drawn(inner)}
        return {**first, "proj.2.weight": drawn(width, inner), "proj.2.bias": drawn(width), **ends}
    hidden, heads = 128, 2  # of 64 each
    found = {
        "latents": drawn(1, TOKENS["plus"], hidden, share=4), "proj_in.weight": drawn(hidden, inner),
        "proj_in.bias": drawn(hidden), "proj_out.weight": drawn(width, hidden), "proj_out.bias": drawn(width),
        "norm_out.weight": torch.ones(width), "norm_out.bias": torch.zeros(width),
    }  # fmt: skip
    for number in range(4):
        at = f"layers.{number}"
        for name in (f"{at}.0.norm1", f"{at}.0.norm2", f"{at}.1.0"):
            found |= {f"{name}.weight": torch.ones(hidden), f"{name}.bias": torch.zeros(hidden)}
        found |= {
            f"{at}.0.to_q.weight": drawn(64 * heads, hidden), f"{at}.0.to_kv.weight": drawn(2 * 64 * heads, hidden),
            f"{at}.0.to_out.weight": drawn(hidden, 64 * heads), f"{at}.1.1.weight": drawn(4 * hidden, hidden),
            f"{at}.1.3.weight": drawn(hidden, 4 * hidden),
        }  # fmt: skip
    return found


def write_adapter(folder, checkpoint_folder, kind="plain", seed=6, encoder=True, **changes):
    """A folder with the file of an adapter and, beside it, `image_encoder`; the path of the file."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"ip-adapter-{kind}.safetensors"
    save_file({k: v.contiguous() for k, v in adapter_tensors(checkpoint_folder, kind, seed, **changes).items()}, file)
    if encoder:
        write_encoder(folder / "image_encoder", **changes)
    return file
