"""Opening IP-Adapters and their image encoders: from a file, a folder, or the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from warpfuse.engine.bundle_parts import MOST_IMAGES, StyleImage
from warpfuse.engine.errors import one_line

from ..onnx_writing import ExportError
from .checkpoint import Checkpoint
from .control_files import NAME
from .families import family_by_width
from .folder import read_json
from .hub import fetch_folder, fetch_image_adapter
from .image_prompt import ImageEncoder, Images, cross_attention_layers, takes_pooled
from .weights import PICKLED, Tensors, load_image_encoder, read_tensors

FLAG = "--style-image"
BESIDE = "image_encoder"
"""Name of the encoder's folder beside an adapter's file."""

_PROJECTION, _ATTENTION = "image_proj.", "ip_adapter."
_EXAMPLE = "ink=h94/IP-Adapter/models/ip-adapter_sd15.safetensors"
# Width of an adapter's input -> encoders with this width, of the pooled vector (_POOLED) or of a token (_STATES).
_POOLED = {768: "ViT-L/14", 1024: "ViT-H/14 (h94/IP-Adapter/models/image_encoder)",
           1280: "ViT-bigG/14 (h94/IP-Adapter/sdxl_models/image_encoder)"}  # fmt: skip
_STATES = {1024: "ViT-L/14", 1280: _POOLED[1024], 1664: _POOLED[1280]}


@dataclass(frozen=True, slots=True)
class ImageSource:
    """A requested style image: its name, and the folder, file or hub id of its IP-Adapter and of the encoder.

    encoder  None: the folder `image_encoder` beside the adapter
    """

    name: str
    source: str
    encoder: str | None = None


def parse_style_image(text: str) -> ImageSource:
    """Parse NAME=SOURCE[:ENCODER] of `--style-image`. Raises ExportError."""
    name, equals, source = text.partition("=")
    encoder = None
    if not Path(source).expanduser().exists():
        source, colon, behind = source.partition(":")
        encoder = behind if colon else None
    if not equals or not source or not NAME.fullmatch(name) or encoder == "":
        raise ExportError(
            f"{FLAG} {text}: expected NAME=SOURCE or NAME=SOURCE:ENCODER, as in {_EXAMPLE}; a name has letters, digits,"
            " _ and -"
        )
    return ImageSource(name, source, encoder)


def open_images(checkpoint: Checkpoint, asked: Sequence[ImageSource]) -> Images:
    """Open the adapters with their encoders. Adapters with the same encoder share its network.

    Raises ExportError: too many, repeated names, nothing found, pickled or damaged weights, an adapter of another
    family, an encoder of another adapter.
    """
    names = [one.name for one in asked]
    if len(asked) > MOST_IMAGES:
        raise ExportError(f"{FLAG}: {len(asked)} style images, expected {MOST_IMAGES} at most")
    for name in names:
        if names.count(name) > 1:
            raise ExportError(f"{FLAG} {name}: two style images are called so. Give each its own name")
    projections: dict[Path, dict[str, nn.Module]] = {}  # by the folder of the encoder
    keys = []
    for one in asked:
        file, folder = _located(one)
        tensors = read_tensors(file)
        keys.append(_keys(checkpoint, one, tensors))
        projection = _projection(checkpoint, one, tensors)
        _check_encoder(one, projection, read_json(folder / "config.json"), folder)
        projections.setdefault(folder.resolve(), {})[one.name] = projection
    networks = [ImageEncoder(load_image_encoder(folder), list(those.values())) for folder, those in projections.items()]
    unet: Any = checkpoint.unet
    about = {
        name: StyleImage(
            name=name, network=number, size=network.size, tokens=count, width=unet.config.cross_attention_dim
        )
        for number, (network, those) in enumerate(zip(networks, projections.values(), strict=True))
        for name, count in zip(those, network.counts, strict=True)
    }
    return Images(tuple(about[name] for name in names), tuple(networks), tuple(keys))


def _located(asked: ImageSource) -> tuple[Path, Path]:
    """The file of an adapter and the folder of its encoder. Raises ExportError."""
    path = Path(asked.source).expanduser()
    if path.is_dir():
        file = _in_folder(path)
    elif path.is_file():
        file = path
    else:
        return _of_the_hub(asked)
    if file.suffix != ".safetensors":
        raise ExportError(_pickled(file.name))
    return file, _encoder_folder(asked, file.parent)


def _in_folder(folder: Path) -> Path:
    files = sorted(path for path in folder.iterdir() if path.suffix == ".safetensors")
    if len(files) == 1:
        return files[0]
    pickled = sorted(path for path in folder.iterdir() if path.suffix in PICKLED)
    if not files and pickled:
        raise ExportError(_pickled(pickled[0].name))
    there = ", ".join(path.name for path in files) or "none"
    raise ExportError(f"{folder}: expected one .safetensors file of an IP-Adapter in it, found {there}. Give the file")


def _encoder_folder(asked: ImageSource, beside: Path) -> Path:
    if asked.encoder is None:
        folder = beside / BESIDE
        if not (folder / "config.json").is_file():
            raise ExportError(
                f"{FLAG} {asked.name}: no image encoder in {folder}. Give it behind a colon, as in "
                f"{asked.name}={asked.source}:FOLDER"
            )
        return folder
    folder = Path(asked.encoder).expanduser()
    if folder.is_dir():
        return folder
    parts = asked.encoder.split("/")
    if len(parts) < 2 or not all(parts) or asked.encoder.startswith((".", "~")):
        raise ExportError(
            f"{FLAG} {asked.name}: {asked.encoder}: no such folder, and no hub id of an image encoder, which looks like"
            " h94/IP-Adapter/models/image_encoder"
        )
    return fetch_folder("/".join(parts[:2]), "/".join(parts[2:]))


def _of_the_hub(asked: ImageSource) -> tuple[Path, Path]:
    parts = asked.source.split("/")
    suffix = Path(asked.source).suffix
    if suffix in PICKLED and len(parts) > 2:
        raise ExportError(_pickled(parts[-1]))
    local = asked.source.startswith(("/", ".", "~")) or (len(parts) < 3 and suffix in (".safetensors", *PICKLED))
    if local or len(parts) < 2 or not all(parts):
        raise ExportError(
            f"{asked.source}: no such folder or file, and nothing of the hub, which looks like "
            "h94/IP-Adapter/models/ip-adapter_sd15.safetensors"
        )
    file = "/".join(parts[2:])
    beside = "/".join([*parts[2:-1], BESIDE]) if asked.encoder is None else None
    found, folder = fetch_image_adapter("/".join(parts[:2]), file, beside)
    return found, folder or _encoder_folder(asked, found.parent)


def _pickled(name: str) -> str:
    return (
        f"{name} is no .safetensors file. Pickled weights (.bin, .pt, .ckpt) are refused: opening one can run whatever "
        "its maker put in. Get the .safetensors of it"
    )


def _keys(checkpoint: Checkpoint, asked: ImageSource, tensors: Tensors) -> tuple[tuple[Tensor, Tensor], ...]:
    """The adapter's weights for keys and values, for each layer of cross-attention. Raises ExportError."""
    unet: Any = checkpoint.unet
    layers = cross_attention_layers(unet)
    own = {key.removeprefix(_ATTENTION): tensor for key, tensor in tensors.items() if key.startswith(_ATTENTION)}
    if not any(key.endswith("to_k_ip.weight") for key in own):
        raise ExportError(f"{asked.source} holds no IP-Adapter (no {_ATTENTION}*.to_k_ip). Is it the right file?")
    if any("_lora." in key for key in own):
        raise ExportError(_face(asked))
    width, theirs = unet.config.cross_attention_dim, next(t.shape[1] for k, t in own.items() if "to_k_ip" in k)
    if theirs != width:
        raise ExportError(
            f"{FLAG} {asked.name}: this IP-Adapter is of {family_by_width(theirs)}, the checkpoint of "
            f"{family_by_width(width)}. Take one of the checkpoint's family"
        )
    count = sum(key.endswith("to_k_ip.weight") for key in own)
    if count != len(layers):
        raise ExportError(
            f"{FLAG} {asked.name}: this IP-Adapter is made for a UNet of {count} layers of cross-attention, the "
            f"checkpoint has {len(layers)}. Take one of the checkpoint's family"
        )
    found = []
    for place, name in enumerate(layers):
        layer = unet.get_submodule(name)
        pair = []
        for part, linear in (("to_k_ip", layer.to_k), ("to_v_ip", layer.to_v)):
            weight = own.get(f"{2 * place + 1}.{part}.weight")  # self-attention layers have even numbers
            if weight is None or weight.shape != linear.weight.shape:
                shape = None if weight is None else list(weight.shape)
                raise ExportError(
                    f"{FLAG} {asked.name}: {_ATTENTION}{2 * place + 1}.{part}.weight is {shape or 'missing'}, expected "
                    f"{list(linear.weight.shape)}. Take an IP-Adapter of the checkpoint's family"
                )
            pair.append(weight.float())
        found.append((pair[0], pair[1]))
    return tuple(found)


def _face(asked: ImageSource) -> str:
    return (
        f"{FLAG} {asked.name}: this is an IP-Adapter of faces (Face ID): it takes what a face recogniser says and no "
        "picture; it cannot be exported. Take a plain, plus or full one"
    )


def _projection(checkpoint: Checkpoint, asked: ImageSource, tensors: Tensors) -> nn.Module:
    """The network from the encoder's output to image tokens: plain, plus (a resampler) or full. Raises ExportError."""
    own = {key.removeprefix(_PROJECTION): tensor for key, tensor in tensors.items() if key.startswith(_PROJECTION)}
    known = any(key in own for key in ("proj.weight", "proj.3.weight", "latents"))
    if "perceiver_resampler.proj_in.weight" in own or ("norm.weight" in own and not known):
        raise ExportError(_face(asked))
    if not known:
        raise ExportError(
            f"{FLAG} {asked.name}: its projection is of no known kind: expected a plain, plus or full IP-Adapter"
        )
    unet: Any = checkpoint.unet
    try:
        projection = unet._convert_ip_adapter_image_proj_to_diffusers(own, low_cpu_mem_usage=False)
    except (KeyError, RuntimeError, ValueError, IndexError) as error:
        reason = one_line(error, 200)
        raise ExportError(f"{FLAG} {asked.name}: its projection does not fit: {reason}") from None
    whole: nn.Module = projection.float().eval().requires_grad_(False)
    return whole


def _check_encoder(asked: ImageSource, projection: nn.Module, config: Mapping[str, Any], folder: Path) -> None:
    """Raise ExportError unless the folder has a CLIP vision encoder of the right width."""
    kind = config.get("model_type")
    if kind != "clip_vision_model":
        raise ExportError(
            f"{FLAG} {asked.name}: {folder} holds {kind or 'a network of no known kind'}, expected a "
            "CLIPVisionModelWithProjection (model_type clip_vision_model)"
        )
    pooled = takes_pooled(projection)
    taken = _taken(projection)
    given = config.get("projection_dim", 512) if pooled else config.get("hidden_size", 768)
    if taken != given:
        fitting = (_POOLED if pooled else _STATES).get(taken, f"one of width {taken}")
        raise ExportError(
            f"{FLAG} {asked.name}: the adapter takes {taken} numbers of the encoder, {folder.name} gives {given}. Give "
            f"the encoder it was made with behind a colon: {fitting}"
        )


def _taken(projection: Any) -> int:
    """Width of the pooled vector, or of a token, that a projection takes."""
    if takes_pooled(projection):
        return int(projection.image_embeds.in_features)
    first = projection.proj_in if hasattr(projection, "proj_in") else projection.ff.net[0].proj
    return int(first.in_features)
