"""Opening ControlNets and T2I-Adapters: from a folder of diffusers, a single file, or the hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from warpfuse.engine.bundle_parts import MOST_CONTROLS, Control

from ..onnx_writing import ExportError
from .checkpoint import Checkpoint
from .control import Controls, feature_shapes
from .families import family_by_width
from .folder import read_json
from .hub import fetch_network
from .weights import PICKLED, Tensors, filled, load_diffusers, read_tensors

Form = Literal["controlnet", "adapter"]
FLAGS: Mapping[Form, str] = {"controlnet": "--control", "adapter": "--adapter"}

_CALLED: Mapping[Form, str] = {"controlnet": "a ControlNet", "adapter": "a T2I-Adapter"}
_CLASSES: Mapping[str, Form] = {"ControlNetModel": "controlnet", "T2IAdapter": "adapter"}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""Allowed names of controls and style images."""
_WHOLE = "control_model."
# A key of similar files that are not supported -> (what they are, what to use instead).
_OTHERS = {
    "lora_controlnet": (
        "a Control-LoRA, which changes the UNet's weights",
        "the whole ControlNet of its kind, as in diffusers/controlnet-canny-sdxl-1.0",
    ),
    "task_embedding": (
        "a ControlNet-Union, which is of many kinds",
        "a ControlNet of the kind you need, as in diffusers/controlnet-canny-sdxl-1.0",
    ),
}
_DIFFERENCE = "difference"  # key in files whose weights have to be added to those of the checkpoint's UNet
_AROUND = {"label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2"}


@dataclass(frozen=True, slots=True)
class ControlSource:
    """A requested control: its name, its form, and its folder, file or hub id."""

    name: str
    form: Form
    source: str


def parse_control(text: str, form: Form) -> ControlSource:
    """Parse NAME=SOURCE of `--control` or `--adapter`. Raises ExportError."""
    name, equals, source = text.partition("=")
    if not equals or not source or not NAME.fullmatch(name):
        raise ExportError(
            f"{FLAGS[form]} {text}: expected NAME=SOURCE, as in canny=lllyasviel/sd-controlnet-canny; a name has"
            " letters, digits, _ and -"
        )
    return ControlSource(name, form, source)


def open_controls(
    checkpoint: Checkpoint, asked: Sequence[ControlSource], size: tuple[int, int],
    say: Callable[[str], None] = lambda line: None,
) -> Controls:  # fmt: skip
    """Open the networks of the controls, for maps of size (width, height).

    say  is called with a line for parts of files that are left out

    Raises ExportError: too many, repeated names, nothing found, pickled or damaged weights, another family.
    """
    names = [one.name for one in asked]
    if len(asked) > MOST_CONTROLS:
        raise ExportError(f"--control, --adapter: {len(asked)} controls, expected {MOST_CONTROLS} at most")
    for one in asked:
        if names.count(one.name) > 1:
            raise ExportError(f"{FLAGS[one.form]} {one.name}: two controls are called so. Give each its own name")
    networks = [_opened(checkpoint, one, say) for one in asked]
    for one, network in zip(asked, networks, strict=True):
        check = _check_controlnet if one.form == "controlnet" else _check_adapter
        check(checkpoint, one, network, size)
    return Controls(tuple(Control(name=one.name, form=one.form) for one in asked), tuple(networks))


def _opened(checkpoint: Checkpoint, asked: ControlSource, say: Callable[[str], None]) -> nn.Module:
    path = Path(asked.source).expanduser()
    if path.is_dir():
        return _of_folder(asked, path)
    if path.is_file():
        if path.suffix != ".safetensors":
            raise ExportError(
                f"{path} is no .safetensors file. Pickled weights (.pth, .ckpt, .bin) are refused: opening one can run "
                "whatever its maker put in. Get the .safetensors of it"
            )
        return _of_file(checkpoint, asked, path, say)
    looks_like_a_file = path.suffix == ".safetensors" or path.suffix in PICKLED
    if looks_like_a_file or asked.source.count("/") != 1 or asked.source.startswith(("/", ".", "~")):
        raise ExportError(
            f"{asked.source}: no such folder or file, and no hub id, which looks like lllyasviel/sd-controlnet-canny"
        )
    return _of_folder(asked, fetch_network(asked.source))


def _of_folder(asked: ControlSource, folder: Path) -> nn.Module:
    kind = str(read_json(folder / "config.json").get("_class_name"))
    if kind not in _CLASSES:
        raise ExportError(
            f"{asked.source}: {kind} cannot be exported. Those that work: {', '.join(_CLASSES)}; take one of them"
        )
    _check_form(asked, _CLASSES[kind])
    return load_diffusers(kind, folder)


def _of_file(checkpoint: Checkpoint, asked: ControlSource, path: Path, say: Callable[[str], None]) -> nn.Module:
    tensors = read_tensors(path)
    for key, (what, remedy) in _OTHERS.items():
        if key in tensors or f"{_WHOLE}{key}" in tensors:
            raise ExportError(f"{path.name} is {what}; it cannot be exported. Take {remedy}")
    whole = {name.removeprefix(_WHOLE): tensor for name, tensor in tensors.items() if name.startswith(_WHOLE)}
    if whole:
        if beside := len(tensors.keys() - {_DIFFERENCE}) - len(whole):
            say(f"{path.name}: took its ControlNet ({_WHOLE}*), left out {beside} tensors of the checkpoint beside it")
        tensors = whole | {key: tensor for key, tensor in tensors.items() if key == _DIFFERENCE}
    if "input_hint_block.0.weight" in tensors or "controlnet_cond_embedding.conv_in.weight" in tensors:
        _check_form(asked, "controlnet")
        return _controlnet(checkpoint, asked, tensors, path.name, say)
    plain = {name.removeprefix("adapter."): tensor for name, tensor in tensors.items()}
    if any(name.startswith("body.0.") for name in plain):
        _check_form(asked, "adapter")
        return _adapter(checkpoint, plain, path.name)
    raise ExportError(f"{path.name} holds neither a ControlNet nor a T2I-Adapter. Is it the right file?")


def _check_form(asked: ControlSource, form: Form) -> None:
    if asked.form != form:
        raise ExportError(
            f"{FLAGS[asked.form]} {asked.name}={asked.source}: this is {_CALLED[form]}. Give it with {FLAGS[form]}"
        )


def _controlnet(
    checkpoint: Checkpoint, asked: ControlSource, tensors: Tensors, name: str, say: Callable[[str], None]
) -> nn.Module:
    """The ControlNet in a file, with the architecture of the checkpoint's UNet.

    If the file has the differences to a UNet, the tensors of the checkpoint's UNet are added.
    """
    from diffusers import ControlNetModel
    from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint

    untyped: Any = convert_controlnet_checkpoint
    kind: Any = ControlNetModel
    width = next((tensor.shape[1] for key, tensor in tensors.items() if key.endswith("attn2.to_k.weight")), None)
    _check_width(checkpoint, asked, width)
    network = kind.from_unet(checkpoint.unet, load_weights_from_unet=False)
    own: Mapping[str, Any] = checkpoint.unet.state_dict() if _DIFFERENCE in tensors else {}
    if own:
        say(f"{name}: a difference to a UNet, added to that of the checkpoint")

    def convert() -> Tensors:
        state = untyped(dict(tensors), config=network.config)
        for theirs, ours in _AROUND.items():
            state |= {f"{ours}.{leaf}": tensors.get(f"{theirs}.{leaf}") for leaf in ("weight", "bias")
                      if f"{theirs}.{leaf}" in tensors}  # fmt: skip
        whole = {key: tensor for key, tensor in state.items() if tensor is not None}
        return {key: tensor.float() + own[key] if key in own else tensor for key, tensor in whole.items()}

    return filled(network, convert, "ControlNet", name)


def _check_width(checkpoint: Checkpoint, asked: ControlSource, width: int | None) -> None:
    unet: Any = checkpoint.unet
    own = unet.config.cross_attention_dim
    if width != own:
        raise ExportError(
            f"{FLAGS[asked.form]} {asked.name}: this ControlNet is of {family_by_width(width)}, the checkpoint of "
            f"{family_by_width(own)}. Take one of the checkpoint's family"
        )


def _check_controlnet(checkpoint: Checkpoint, asked: ControlSource, network: Any, size: tuple[int, int]) -> None:
    """Raise ExportError unless the shapes of its residuals fit the skips of the UNet."""
    unet: Any = checkpoint.unet
    config = network.config
    _check_width(checkpoint, asked, config.cross_attention_dim)
    for key in ("block_out_channels", "layers_per_block", "down_block_types", "in_channels", "addition_embed_type"):
        theirs, ours = (_listed(one.config.get(key)) for one in (network, unet))
        if theirs != ours:
            raise ExportError(
                f"--control {asked.name}: its {key} is {theirs}, that of the checkpoint {ours}. Take a ControlNet of "
                "the checkpoint's family"
            )
    if config.conditioning_channels != 3:
        raise ExportError(
            f"--control {asked.name}: it takes maps of {config.conditioning_channels} channels, expected 3"
        )


def _check_adapter(checkpoint: Checkpoint, asked: ControlSource, network: Any, size: tuple[int, int]) -> None:
    """Raise ExportError unless the shapes of its features fit the blocks of the UNet."""
    unet: Any = checkpoint.unet
    xl = network.config.adapter_type == "full_adapter_xl"
    if xl != checkpoint.family.xl:
        theirs, ours = (("SDXL" if one else "SD 1.5") for one in (xl, checkpoint.family.xl))
        raise ExportError(
            f"--adapter {asked.name}: this T2I-Adapter is of {theirs}, the checkpoint of {ours}. Take one of its family"
        )
    unshuffled = network.downscale_factor
    if any(side % unshuffled for side in size):
        raise ExportError(
            f"size {size[0]}x{size[1]}: the T2I-Adapter {asked.name!r} takes multiples of {unshuffled}, as in 512x512"
        )
    widths = [shape[0] for shape in feature_shapes(network, size)]
    blocks = list(unet.config.block_out_channels)
    wanted = [*blocks, blocks[-1]] if xl else blocks
    if widths != wanted:
        raise ExportError(
            f"--adapter {asked.name}: its features have {widths} channels, the blocks of the checkpoint {wanted}. Take "
            "one of its family"
        )


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def _adapter(checkpoint: Checkpoint, tensors: Tensors, name: str) -> nn.Module:
    """The T2I-Adapter in a file, with keys of diffusers or of the original implementation."""
    from diffusers import T2IAdapter

    kind: Any = T2IAdapter
    light = "conv_in.weight" not in tensors
    state = {_adapter_key(key, _flat(tensors)): tensor for key, tensor in tensors.items()}
    blocks = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("body."))
    last = "out_conv" if light else "resnets.0.block2"
    try:
        widths = [state[f"body.{number}.{last}.weight"].shape[0] for number in range(blocks)]
        first = state["body.0.in_conv.weight" if light else "conv_in.weight"].shape[1]
    except KeyError as error:
        raise ExportError(f"{name}: its T2I-Adapter lacks tensor {error}. Copy or download it again") from None
    factor = 16 if checkpoint.family.xl else 8
    if first not in (factor**2, 3 * factor**2):  # it is of the other family; `_check_adapter` reports that
        factor = 24 - factor
    network = kind(
        in_channels=first // factor**2,
        channels=widths[:-1] if light else widths,
        num_res_blocks=1 + max(int(key.split(".")[3]) for key in state if key.startswith("body.0.resnets.")),
        downscale_factor=factor,
        adapter_type="light_adapter" if light else "full_adapter_xl" if factor == 16 else "full_adapter",
    )
    return filled(network, lambda: {f"adapter.{key}": tensor for key, tensor in state.items()}, "T2I-Adapter", name)


_BLOCKS = 4  # blocks of a full adapter; the original implementation numbers all layers consecutively


def _flat(tensors: Tensors) -> int:
    """Layers of each block if layers are numbered consecutively, as in the original's full adapters; else 0."""
    if "body.0.block1.weight" not in tensors:
        return 0
    return (1 + max(int(key.split(".")[1]) for key in tensors if key.startswith("body."))) // _BLOCKS


def _adapter_key(key: str, flat: int) -> str:
    """A key of the original implementation as in diffusers. A key of diffusers is returned unchanged.

    flat  result of `_flat`
    """
    parts = key.split(".")
    if parts[0] != "body":
        return key
    if not flat:  # light adapters have body.1.body.0.block1
        return key.replace(f"body.{parts[1]}.body.", f"body.{parts[1]}.resnets.")
    block, layer = divmod(int(parts[1]), flat)
    inner = parts[2:] if parts[2] == "in_conv" else ["resnets", str(layer), *parts[2:]]
    return ".".join(["body", str(block), *inner])
