"""Law: scripts of `bench` and `docs`, which nothing runs since they take minutes, import what the package has."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def lacking(script):
    """What it imports of the package, at any place, and is not there."""
    nodes = [node for node in ast.walk(ast.parse(script.read_text())) if isinstance(node, ast.ImportFrom)]
    wanted = [
        (node.module, name.name) for node in nodes if (node.module or "").startswith("warpfuse") for name in node.names
    ]
    return [f"{module}: {name}" for module, name in wanted if not found(module, name)]


def found(module, name):
    try:
        if hasattr(importlib.import_module(module), name):
            return True
        importlib.import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return False
    return True


@pytest.mark.parametrize(
    "script", sorted([*ROOT.glob("bench/**/*.py"), *ROOT.glob("docs/*.py")]), ids=lambda path: path.stem
)
def test_a_script_imports_what_is_there(script):
    assert not lacking(script)


def test_what_is_not_there_is_seen(tmp_path):
    (tmp_path / "a.py").write_text(
        "from warpfuse.graph.no_such import a\ndef f():\n    from warpfuse.graph import run, no_such\n"
    )
    assert lacking(tmp_path / "a.py") == ["warpfuse.graph.no_such: a", "warpfuse.graph: no_such"]
