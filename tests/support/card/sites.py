"""Where the package asks the card for order, found in its text: each place is one that a mutation leaves out."""

import ast
from pathlib import Path
from typing import NamedTuple

import warpfuse

ASKING = {
    "wait_event": ("wait_event",),
    "synchronize": ("synchronize",),
    "record_again": ("record",),
    "recorded": ("record",),
    "record_stream": ("record_stream",),
    "wrote": ("record",),
    "reads": ("wait_event", "record_stream"),
    "settle": ("synchronize",),
    "_foreach_copy_": ("copy",),
}
"""Call -> the operations of the card that it comes to."""

_THEMSELVES = ("reads", "wrote")  # those who call them are the places


class Site(NamedTuple):
    """turn: counts the calls for an operation in a function, from 1."""

    operation: str
    module: str
    function: str
    turn: int
    lines: range

    def __str__(self):
        return f"{self.module.removeprefix('warpfuse.')}:{self.function}:{self.operation}:{self.turn}"


def sites():
    """{name: site} of the whole package, but for `engine/device.py`, which does what the others ask for."""
    (root,) = map(Path, warpfuse.__path__)
    found = {}
    for path in sorted(root.rglob("*.py")):
        module = ".".join(("warpfuse", *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")
        text = path.read_text()
        if "engine.device" in text or "engine.cuda_streams" in text or "import device" in text:
            _search(ast.parse(text), module, (), found)
    return {name: site for name, site in found.items() if site.module != "warpfuse.engine.device"}


def _search(node, module, inside, found):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            _search(child, module, (*inside, child.name), found)
            continue
        function = ".".join(inside)
        if isinstance(child, ast.Call) and function not in _THEMSELVES:
            called = child.func.attr if isinstance(child.func, ast.Attribute) else getattr(child.func, "id", "")
            for operation in ASKING.get(called, ()):
                turn, lines = 1, range(child.lineno, child.end_lineno + 1)
                while str(site := Site(operation, module, function, turn, lines)) in found:
                    turn += 1
                found[str(site)] = site
        _search(child, module, inside, found)
