"""Check that a `.pt2` file holds only data and calls of torch's own operators, before torch opens it.

`torch.export.load` trusts the file: it unpickles objects that `weights_only` refuses, evaluates shape expressions as
Python, and links compiled code. A file with any of these is refused here. The rest is a graph of ATen operators over
raw tensors. This does not prove that the file is harmless: bad sizes may still trigger a bug in an operator of torch,
just as an ONNX file may trigger one in its runtime.
"""

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from warpfuse.engine.errors import EngineError

_KNOWN = re.compile(
    r"[^/]+/(models/model\.json|data/(weights|constants)/((weight|tensor)_\d+|model_(weights|constants)_config\.json)"
    r"|data/sample_inputs/model\.pt|archive_format|archive_version|\.data/\w+|byteorder|\.format_version|version)"
)
_TARGET = re.compile(r"torch\.ops\.(aten|prims)\.\w+\.\w+|_operator\.(?!attrgetter|itemgetter|methodcaller|call)[a-z]+"
                     r"|math\.[a-z0-9]+|torch\.sym_[a-z]+")  # fmt: skip
_NODES = (
    *(ast.Expression, ast.Constant, ast.Name, ast.Load, ast.Attribute, ast.Subscript, ast.Call, ast.keyword),
    *(ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)
_NAMES = re.compile(
    r"[su]\d+|L|max|min|Symbol|Integer|Rational|Add|Mul|Pow|Max|Min|Mod|PythonMod|FloorDiv|CeilDiv|CleanDiv|IntTrueDiv"
    r"|ModularIndexing|TruncToInt|Eq|Ne|Lt|Le|Gt|Ge|floor|ceiling"
)
_ATTRIBUTES = ("size", "stride", "storage_offset")
_LONGEST_TEXT = 10_000
_LARGEST_JSON = 256 << 20


def check_archive(path: Path) -> None:
    """Raise EngineError unless `path` is a `.pt2` archive that holds only data and operators of torch."""
    try:
        with zipfile.ZipFile(path) as archive:
            reason = next(_reasons(archive), None)
    except (OSError, zipfile.BadZipFile, ValueError, KeyError) as error:
        raise EngineError(f"{path.name} is no exported program: {error}. Export the bundle with --to torch") from None
    if reason is not None:
        raise EngineError(f"{path.name} is refused: {reason}. Export the bundle with --to torch")


def _reasons(archive: zipfile.ZipFile) -> Iterator[str]:
    names = archive.namelist()
    if len({name.partition("/")[0] for name in names}) != 1 or len(set(names)) != len(names):
        yield "it is more than one archive"
    yield from (f"it holds {name!r}, which is neither data nor a graph" for name in names if not _KNOWN.fullmatch(name))
    if not any(name.endswith("models/model.json") for name in names):
        yield "it holds no program"
    for name in names:
        if name.endswith(".json"):
            if archive.getinfo(name).file_size > _LARGEST_JSON:
                yield f"{name} is larger than {_LARGEST_JSON} bytes"
            yield from _in_json(json.loads(archive.read(name)))
        elif name.endswith(".pt"):
            yield from _in_pickle(name, archive.read(name))


def _in_pickle(name: str, data: bytes) -> Iterator[str]:
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, AttributeError) as error:
        yield f"{name} is a pickle of more than tensors ({str(error).splitlines()[0][:80]})"


def _in_json(node: Any) -> Iterator[str]:
    """Check every place of a program where torch would unpickle, look up a name, or evaluate text."""
    if isinstance(node, list):
        for part in node:
            yield from _in_json(part)
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        if key == "use_pickle" and value:
            yield "a tensor in it is pickled"
        elif key == "target" and isinstance(value, str) and "inputs" in node and not _TARGET.fullmatch(value):
            yield f"it calls {value[:80]!r}, which is no operator of torch"
        elif key == "expr_str" and not is_arithmetic(value):
            yield f"{str(value)[:80]!r} is no arithmetic of sizes"
        elif key == "range_constraints" and isinstance(value, dict):
            yield from (f"{name[:80]!r} is no arithmetic of sizes" for name in value if not is_arithmetic(name))
        elif key == "guards_code" and isinstance(value, list):
            yield from (f"{str(guard)[:80]!r} is no condition on sizes" for guard in value if not is_arithmetic(guard))
        elif key == "as_custom_obj" or (key == "as_operator" and not _TARGET.fullmatch(str(value))):
            yield f"it holds an object or operator that is not torch's ({key})"
        yield from _in_json(value)


def is_arithmetic(text: object) -> bool:
    """Whether an expression that torch evaluates has only sums, products and comparisons of sizes.

    Examples: "2*s3", "Mul(Integer(2), Symbol('s3', positive=True))", "(L['x'].size()[2] % 2) == 0".
    """
    if not isinstance(text, str) or len(text) > _LONGEST_TEXT:
        return False
    try:
        nodes = list(ast.walk(ast.parse(text.strip(), mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(isinstance(node, _NODES) and _is_harmless(node) for node in nodes)


def _is_harmless(node: ast.AST) -> bool:
    match node:
        case ast.Name(name):
            return _NAMES.fullmatch(name) is not None
        case ast.Attribute(_, attribute):
            return attribute in _ATTRIBUTES
        case ast.Constant(str(text)):
            return text.isidentifier() and not text.startswith("__")
        case ast.Constant(value):
            return isinstance(value, bool | int | float)
        case _:
            return True
