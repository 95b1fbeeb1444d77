"""Networks to ONNX: dynamic batch, height and width, weights stored in half precision, computed in single."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from warpfuse.export.onnx_writing import ExportError, store_in_half, trace

from .autoencoder import DOWNSCALE, LATENT_CHANNELS, TinyDecoder, TinyEncoder
from .edge_network import MULTIPLE, TinyEdgeNetwork
from .flow_network import COARSEST, TinyFlowNetwork
from .line_block import LineBlock
from .past_encoder import PastEncoder
from .styles import STYLES
from .unet import TinyUNet

N = TypeVar("N", bound=nn.Module)


def encoder_onnx(encoder: TinyEncoder | PastEncoder) -> bytes:
    """rgb [n,3,h,w] -> latent [n,C,h/8,w/8]."""
    rgb = torch.zeros(1, 3, 8 * DOWNSCALE, 8 * DOWNSCALE)
    return _export(encoder, {"rgb": rgb}, "latent")


def unet_onnx(unet: TinyUNet, styles: int) -> bytes:
    """x, source [n,C,h,w], level [n,2], style [n,S] -> output [n,C,h,w]."""
    latent = torch.zeros(1, LATENT_CHANNELS, 8, 8)
    about = {"level": torch.zeros(1, 2), "style": torch.zeros(1, styles)}
    return _export(unet, {"x": latent, "source": latent.clone(), **about}, "output")


def decoder_onnx(decoder: TinyDecoder) -> bytes:
    """latent [n,C,h,w] -> rgb [n,3,8h,8w] in [0,1]."""
    clamp, decoder.clamp = decoder.clamp, True
    try:
        return _export(decoder, {"latent": torch.zeros(1, LATENT_CHANNELS, 8, 8)}, "rgb")
    finally:
        decoder.clamp = clamp


def lines_onnx(block: LineBlock, styles: int) -> bytes:
    """rgb [n,3,8h,8w], latent [n,C,h,w], style [n,S] -> cover [n,1,8h,8w] in [0,1]."""
    rgb, latent = torch.zeros(1, 3, 8 * DOWNSCALE, 8 * DOWNSCALE), torch.zeros(1, LATENT_CHANNELS, 8, 8)
    axes = {name: {0: "n", 2: "out_h", 3: "out_w"} for name in ("rgb", "cover")}
    axes |= {"latent": {0: "n", 2: "h", 3: "w"}, "style": {0: "n"}}
    feed = {"rgb": rgb, "latent": latent, "style": torch.zeros(1, styles)}
    return _checked(trace(block, feed, ["cover"], axes))


def flow_onnx(network: TinyFlowNetwork) -> bytes:
    """cur, prev [n,3,h,w] -> flow, flow_back [n,2,h,w], h and w multiples of 16."""
    rgb = torch.zeros(1, 3, 4 * COARSEST, 6 * COARSEST)
    axes = {name: {0: "n", 2: "h", 3: "w"} for name in ("cur", "prev", "flow", "flow_back")}
    return _checked(trace(network, {"cur": rgb, "prev": rgb.clone()}, ["flow", "flow_back"], axes))


def edges_onnx(network: TinyEdgeNetwork) -> bytes:
    """rgb [1,3,h,w] -> map [1,1,h,w] in [0,1], h and w multiples of MULTIPLE."""
    axes = {name: {2: "h", 3: "w"} for name in ("rgb", "map")}
    return _checked(trace(network, {"rgb": torch.zeros(1, 3, 4 * MULTIPLE, 6 * MULTIPLE)}, ["map"], axes))


def read_weights(network: N, file: Path) -> N:
    """Fill `network` with the weights of a file written here, for a training that goes on from them.

    Raises ExportError: it is the file of another network.
    """
    return _filled(network, _stored(file), file)


def read_unet(unet: TinyUNet, file: Path, known: Sequence[str]) -> TinyUNet:
    """As `read_weights`, of a file whose styles are `known`, in their order: others start as `unet` has them."""
    stored, name = _stored(file), "condition.0.weight"
    own = unet.state_dict()[name].clone()
    told = own.shape[1] - len(STYLES)
    if name in stored:
        own[:, :told] = stored[name][:, :told]
        _places(own[:, told:], stored[name][:, told:], known)
        stored[name] = own
    return _filled(unet, stored, file)


def read_lines(block: LineBlock, file: Path, known: Sequence[str]) -> LineBlock:
    """As `read_unet`."""
    stored = _stored(file)
    for name in ("threshold", "told", "hatched"):
        own = block.state_dict()[name].clone()
        if name in stored:
            _places(own.T, stored[name].T, known)
            stored[name] = own
    stored["drawn"] = block.drawn
    return _filled(block, stored, file)


def _places(own: Tensor, stored: Tensor, known: Sequence[str]) -> None:
    """Copy the columns of the styles that both have into `own` [n,S]."""
    for i, style in enumerate(STYLES):
        if style.name in known and known.index(style.name) < stored.shape[1]:
            own[:, i] = stored[:, known.index(style.name)]


def _stored(file: Path) -> dict[str, Tensor]:
    return {
        tensor.name.removesuffix(".half"): torch.from_numpy(numpy_helper.to_array(tensor).astype(np.float32))
        for tensor in onnx.load_model(file).graph.initializer
    }


def _filled(network: N, stored: Mapping[str, Tensor], file: Path) -> N:
    wanted = network.state_dict()
    try:
        network.load_state_dict({name: stored[name] for name in wanted})
    except (KeyError, RuntimeError) as error:
        raise ExportError(f"{file} is not a {type(network).__name__} of this code: {error}") from None
    return network


def round_to_half(network: nn.Module) -> None:
    """Round the weights to what the files can hold, in place: then network and file compute the same."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(parameter.half().float())


def _export(network: nn.Module, inputs: Mapping[str, Tensor], output: str) -> bytes:
    axes = {
        name: {0: "n", 2: "h", 3: "w"} if tensor.ndim == 4 else {0: "n"}
        for name, tensor in {**inputs, output: torch.zeros(1, 1, 1, 1)}.items()
    }
    if set(inputs) in ({"rgb"}, {"latent"}):
        axes[output] = {0: "n", 2: "out_h", 3: "out_w"}
    return _checked(trace(network, inputs, [output], axes))


def _checked(model: onnx.ModelProto) -> bytes:
    store_in_half(model.graph)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())
