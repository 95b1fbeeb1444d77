"""`warpfuse export`: bundles out of published weights. One command for each kind of source."""

import re
from pathlib import Path
from typing import Annotated

import typer

from warpfuse.engine.errors import BadInput

# Note: imports inside the commands. Exporting needs onnx, which a machine that only runs bundles does not have.

app = typer.Typer(no_args_is_help=True, help="Make bundles out of published weights.")

Size = Annotated[str, typer.Option(metavar="WxH", help="Size of the pictures the network takes, pixels.")]
Folder = Annotated[Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder of the bundle.")]


@app.command("raft-small")
def raft_small(
    weights: Annotated[Path, typer.Option(metavar="FILE", help="raft-small.pth")],
    size: Size,
    iterations: Annotated[int, typer.Option(min=1, max=32, help="More are slower and closer.")] = 6,
    output: Folder = None,
) -> None:
    """RAFT-small (Teed and Deng 2020) as a flow bundle."""
    width, height = parse_size(size)
    require_onnx()
    from warpfuse.export.raft_bundle import export_raft_small
    from warpfuse.export.raft_small import load_raft_small

    folder = output or Path(f"raft-small-{width}x{height}")
    bundle = export_raft_small(folder, load_raft_small(weights, iterations), (width, height))
    print(f"wrote {bundle.folder}: {width}x{height}, {iterations} iterations, {bundle.about.licence}")


@app.command("taef2")
def taef2(
    encoder: Annotated[Path, typer.Option(metavar="FILE", help="taef2_encoder.pth")],
    decoder: Annotated[Path, typer.Option(metavar="FILE", help="taef2_decoder.pth")],
    size: Size,
    output: Folder = None,
) -> None:
    """The tiny autoencoder of FLUX.2's latents, the encoder and decoder of a diffusion bundle."""
    width, height = parse_size(size)
    require_onnx()
    from warpfuse.export.taef2 import export_taef2, load_decoder, load_encoder

    folder = output or Path(f"taef2-{width}x{height}")
    bundle = export_taef2(folder, load_encoder(encoder), load_decoder(decoder), (width, height))
    print(f"wrote {bundle.folder}: {width}x{height}, {bundle.about.channels} channels, {bundle.about.licence}")


def parse_size(text: str) -> tuple[int, int]:
    """(width, height) of "512x288". Raises BadInput."""
    match = re.fullmatch(r"\s*(\d{1,5})\s*[xX]\s*(\d{1,5})\s*", text)
    if match is None:
        raise BadInput(f"--size {text!r}: expected WIDTHxHEIGHT in pixels, as in 512x288")
    return int(match[1]), int(match[2])


def require_onnx() -> None:
    """Raise BadInput where ONNX files cannot be written."""
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise BadInput("exporting needs onnx: pip install 'warpfuse[cpu,export]'") from None
