"""ControlNets and T2I-Adapters with random weights for the checkpoints of `random_checkpoint`.

The zero convolutions of a ControlNet add nothing, so tests would hold for anything. Here they are filled. With torch's
default weights the output hardly depends on the input, so layers that a map passes have larger weights.
"""

import torch

SHARE = 0.1


def controlnet(checkpoint_folder, seed=1, **options):
    """A ControlNetModel for the UNet of a checkpoint."""
    from diffusers import ControlNetModel, UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(checkpoint_folder / "unet", low_cpu_mem_usage=False)
    torch.manual_seed(seed)
    net = ControlNetModel.from_unet(unet, load_weights_from_unet=False, **options)
    with torch.no_grad():
        _widen(net.controlnet_cond_embedding)
        zero = [net.controlnet_cond_embedding.conv_out, net.controlnet_mid_block, *net.controlnet_down_blocks]
        for layer in zero:
            layer.weight.normal_(0, SHARE)
            layer.bias.normal_(0, SHARE)
    return net.eval()


def write_controlnet(folder, checkpoint_folder, seed=1, **options):
    """The same as a folder of diffusers."""
    controlnet(checkpoint_folder, seed, **options).save_pretrained(folder)
    return folder


def adapter(checkpoint_folder, seed=2, light=False, channels=3):
    """A T2IAdapter for the UNet of a checkpoint."""
    from diffusers import T2IAdapter, UNet2DConditionModel

    config = UNet2DConditionModel.load_config(checkpoint_folder / "unet")
    blocks, xl = config["block_out_channels"], config.get("addition_embed_type") is not None
    torch.manual_seed(seed)
    if light:
        net = T2IAdapter(channels, list(blocks[:-1]), 4, 8, "light_adapter")
    elif xl:
        net = T2IAdapter(channels, [*blocks, blocks[-1]], 2, 16, "full_adapter_xl")
    else:
        net = T2IAdapter(channels, list(blocks), 2, 8, "full_adapter")
    _widen(net)
    return net.eval()


def write_adapter(folder, checkpoint_folder, seed=2, **options):
    """The same as a folder of diffusers."""
    adapter(checkpoint_folder, seed, **options).save_pretrained(folder)
    return folder


def _widen(network):
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
