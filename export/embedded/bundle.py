"""The bundles that come out: their networks and what `bundle.json` says about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from warpfuse.engine.bundle import Bundle, FlowBundle, load_bundle
from warpfuse.engine.bundle_writing import write_bundle, write_flow_bundle

from .autoencoder import DOWNSCALE, LATENT_CHANNELS, TinyDecoder, TinyEncoder
from .calibration import TrainedNetworks
from .checkpoint import channels_last
from .flow_network import COARSEST, ROUNDS, TinyFlowNetwork
from .ink_tables import ink_table
from .int8 import NAME as INT8
from .int8 import unet_int8
from .levels import BETA_END, BETA_START, TRAIN_TIMESTEPS
from .line_block import LineBlock
from .onnx_files import (
    decoder_onnx,
    encoder_onnx,
    flow_onnx,
    lines_onnx,
    read_lines,
    read_unet,
    read_weights,
    round_to_half,
    unet_onnx,
)
from .painters.colour import hex_rgb
from .past_encoder import past_encoder
from .photographs import Picture
from .styles import DEFAULT_STYLE, STYLES, one_hot
from .thumbnails import thumbnails
from .train_student import LAST_TIMESTEP, START_TIMESTEP
from .unet import TinyUNet

PAST = "encoder_past.onnx"
NETWORKS = {
    "encoder": "encoder.onnx",
    "encoder_past": PAST,
    "unet": "unet.onnx",
    "decoder": "decoder.onnx",
    "lines": "lines.onnx",
}
SOURCE = (
    "Trained from scratch by `python -m warpfuse.export.embedded` on openly licensed photographs, "
    "with the procedural painters of this project as teachers"
)
FLOW_SOURCE = (
    "Trained from scratch by `python -m warpfuse.export.embedded` on synthetic motion of openly licensed photographs"
)


def write_flow(folder: Path, network: TinyFlowNetwork) -> FlowBundle:
    """Write the flow bundle at `folder`, whole or not at all.  Rounds the weights to half precision."""
    round_to_half(network)
    return write_flow_bundle(
        folder,
        {"flow.onnx": flow_onnx(network)},
        name="embedded-flow",
        sizes={"multiple": COARSEST, "minimum": 4 * COARSEST, "default_long_side": 384},
        iterations=ROUNDS,
        networks={"flow": "flow.onnx"},
        licence="Apache-2.0",
        source=FLOW_SOURCE,
    )


def read(folder: Path) -> tuple[TinyEncoder, TinyDecoder, TinyUNet, LineBlock | None]:
    """The networks of a bundle written here, to be trained on; no line block where it has none.

    The places of the styles it knows by name are kept, those of others start anew.  Raises BadInput: no bundle, or
    networks of another make.
    """
    about = load_bundle(str(folder.resolve())).about
    known = list(about.styles)
    lines = about.networks.get("lines")
    return (
        read_weights(TinyEncoder(), folder / about.networks["encoder"]),
        read_weights(TinyDecoder(), folder / about.networks["decoder"]),
        read_unet(channels_last(TinyUNet(len(STYLES))), folder / about.networks["unet"], known),
        None if lines is None else read_lines(line_block(), folder / lines, known),
    )


def line_block() -> LineBlock:
    """One that starts as the line drawings of STYLES."""
    return LineBlock([None if style.line is None else style.line.start() for style in STYLES])


def write(
    folder: Path,
    encoder: TinyEncoder,
    decoder: TinyDecoder,
    unet: TinyUNet,
    lines: LineBlock,
    photos: Sequence[Picture],
    seed: int,
    shown: Picture | None = None,
) -> Bundle:
    """Write the bundle at `folder`, whole or not at all.  Rounds the weights of the networks to half precision.

    photos, seed  what the ranges of the UNet in integers are taken from (`calibration.py`), and what the encoder of
                  the past is fitted on
    shown         the photograph of the thumbnails; None: the first of `photos`
    """
    for network in (encoder, decoder, unet, lines):
        round_to_half(network)
    files = {
        "encoder.onnx": encoder_onnx(encoder),
        "unet.onnx": unet_onnx(unet, len(STYLES)),
        "decoder.onnx": decoder_onnx(decoder),
        "lines.onnx": lines_onnx(lines, len(STYLES)),
    }
    networks = {kind: files[NETWORKS[kind]] for kind in ("encoder", "unet", "decoder")}
    vectors = [one_hot(i) for i in range(len(STYLES))]
    files[PAST] = _past_onnx(networks, photos, seed)
    files[INT8], _ = unet_int8(networks, photos, vectors, (START_TIMESTEP, LAST_TIMESTEP), seed)
    styles: dict[str, dict[str, Any]] = {}
    for i, style in enumerate(STYLES):
        ink = [round(float(x), 4) for x in hex_rgb(style.ink)]
        lines_laid = 0.0 if style.line is None else 1.0
        styles[style.name] = {"vector": one_hot(i), "about": style.about, "ink": ink, "lines": lines_laid}
        table = ink_table(style)
        if table is not None:
            files[f"{style.name}.lut"] = table.tobytes()
            styles[style.name]["lut"] = f"{style.name}.lut"
    for name, jpeg in thumbnails(encoder, unet, decoder, lines, photos[0] if shown is None else shown).items():
        files[f"{name}.jpg"] = jpeg
        styles[name]["thumb"] = f"{name}.jpg"
    return write_bundle(
        folder,
        files,
        name="embedded",
        kind="latent-diffusion",
        prediction="sample",
        levels={
            "schedule": "scaled_linear",
            "beta_start": BETA_START,
            "beta_end": BETA_END,
            "train_timesteps": TRAIN_TIMESTEPS,
        },
        latent={"channels": LATENT_CHANNELS, "downscale": DOWNSCALE, "scale": 1.0},
        takes_source=True,
        strength_scales_style=True,
        sizes={"multiple": 8, "minimum": 64, "default_long_side": 512},
        steps={"top": START_TIMESTEP, "floor": LAST_TIMESTEP},
        default_style=DEFAULT_STYLE,
        styles=styles,
        networks=NETWORKS,
        int8={"unet": INT8},
        licence="Apache-2.0",
        source=SOURCE,
    )


def write_past(folder: Path, photos: Sequence[Picture], seed: int) -> None:
    """Give the bundle at `folder` its encoder of the past, or give it again; all else in it stays.  Raises BadInput."""
    about = load_bundle(str(folder.resolve())).about
    files: dict[str, bytes | Path] = {name: folder / name for name in about.files if name != PAST}
    networks = {kind: (folder / about.networks[kind]).read_bytes() for kind in ("encoder", "decoder")}
    files[PAST] = _past_onnx(networks, photos, seed)
    kept = about.model_dump(exclude={"format", "files", "networks"})
    write_bundle(folder, files, **kept, networks={**about.networks, "encoder_past": PAST})


def _past_onnx(networks: Mapping[str, bytes], photos: Sequence[Picture], seed: int) -> bytes:
    past = past_encoder(TrainedNetworks(networks), photos, seed)
    round_to_half(past)
    return encoder_onnx(past)


def write_int8(folder: Path, photos: Sequence[Picture], seed: int) -> float:
    """Give the bundle at `folder` its UNet in integers, or give it again; all else in it stays.

    Returns how far its pictures are from those in float, dB, in the style where they are farthest.  Raises BadInput.
    """
    about = load_bundle(str(folder.resolve())).about
    files: dict[str, bytes | Path] = {name: folder / name for name in about.files if name != INT8}
    networks = {str(kind): (folder / name).read_bytes() for kind, name in about.networks.items()}
    vectors = [style.vector for style in about.styles.values()]
    files[INT8], least_db = unet_int8(networks, photos, vectors, (about.steps.top, about.steps.floor), seed)
    kept = about.model_dump(exclude={"format", "files", "int8"})
    write_bundle(folder, files, **kept, int8={"unet": INT8})
    return least_db
