"""The command `warpfuse keys`: CURVE keys for links between hosts."""

from pathlib import Path
from typing import Annotated

import typer


def keys(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the keys; it is made if missing.")],
) -> None:
    """Make the keys that links between hosts need: a server's pair, a client's, and who is let in."""
    from warpfuse.graph.links.curve import make_keys

    for path in make_keys(folder):
        print(path)
    print(
        f"The host that sends needs {folder}/server.key_secret and {folder}/allowed, the host that reads"
        f" {folder}/client.key_secret and {folder}/server.key. Secret files stay where they are used."
    )
