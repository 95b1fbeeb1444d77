"""`warpfuse comfy`: installing the folder by which ComfyUI finds the nodes."""

import shutil
import sys
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from warpfuse.engine.errors import BadInput

NAME = "comfyui-warpfuse"
"""Name of the folder, the same as in ComfyUI's registry, so that a folder installed from there is replaced. Because of
the hyphen it cannot be imported instead of the package."""

app = typer.Typer(no_args_is_help=True, help="The nodes of warpfuse in ComfyUI.")

ComfyDir = Annotated[Path, typer.Argument(metavar="[COMFYUI_DIR]", help="The folder with ComfyUI's nodes.py.")]


@app.command()
def install(comfyui: ComfyDir = Path()) -> None:
    """Put the nodes into a ComfyUI; once more after an update."""
    folder = _custom_nodes(comfyui) / NAME
    if folder.exists():
        _need_ours(folder)
    new = folder.with_name(f"{NAME}.part")
    shutil.rmtree(new, ignore_errors=True)
    pack = Path(str(resources.files("warpfuse.comfy") / "pack"))
    try:
        new.mkdir()
        for file in sorted(pack.iterdir()):
            if file.is_file():
                shutil.copyfile(file, new / file.name)
        _remove(folder)
        new.rename(folder)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        raise BadInput(f"{folder} cannot be written: {error.strerror or error}") from None
    print(f"wrote {folder}. Start ComfyUI anew, with the Python that has warpfuse: {sys.executable}")


@app.command()
def uninstall(comfyui: ComfyDir = Path()) -> None:
    """Take the nodes out of a ComfyUI again."""
    folder = _custom_nodes(comfyui) / NAME
    if not folder.exists():
        raise BadInput(f"{folder} is not there: nothing to uninstall")
    _need_ours(folder)
    try:
        _remove(folder)
    except OSError as error:
        raise BadInput(f"{folder} cannot be removed: {error.strerror or error}") from None
    print(f"removed {folder}. Start ComfyUI anew")


def _custom_nodes(comfyui: Path) -> Path:
    """The folder in which ComfyUI looks for nodes. Raises BadInput if there is none."""
    comfyui = comfyui.expanduser().resolve()
    lacking = [
        name for name, there in (("nodes.py", Path.is_file), ("comfy", Path.is_dir)) if not there(comfyui / name)
    ]
    if lacking:
        raise BadInput(
            f"{comfyui} is no ComfyUI: it has no {' and no '.join(lacking)}. Name its folder, as in "
            f"'warpfuse comfy install ~/ComfyUI'"
        )
    folder = comfyui / "custom_nodes"
    if not folder.is_dir():
        raise BadInput(f"{comfyui} has no folder custom_nodes: start that ComfyUI once, or make the folder")
    return folder


def _need_ours(folder: Path) -> None:
    """Raise BadInput unless the folder was written by `install` or by ComfyUI's registry."""
    try:
        name = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        name = None
    if name != NAME:
        raise BadInput(f"{folder} is not of warpfuse: its pyproject.toml does not say so. Move it away")


def _remove(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)
