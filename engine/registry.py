"""Find the modules of a kind: those in a folder of this package, and those that other packages add by entry points.

    [project.entry-points."warpfuse.sources"]
    teletext = "my_package.teletext"

makes `my_package/teletext.py` a source like a file in `stages/sources`. The groups are `warpfuse.sources`,
`warpfuse.sinks`, `warpfuse.stages`, `warpfuse.solvers` and `warpfuse.backends`. A stage, solver or backend has the name
of its entry point.
"""

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pkgutil import iter_modules
from types import ModuleType

from warpfuse.engine.errors import BadInput


def module_names(package: ModuleType) -> list[str]:
    """Names of the modules of a kind: files, then entry points. Nothing is imported."""
    return [entry.name for entry in iter_modules(package.__path__)] + added_names(package)


def added_names(package: ModuleType) -> list[str]:
    """Names of the modules of a kind that other packages add. Nothing is imported."""
    return sorted(_added(package.__name__))


def load_module(package: ModuleType, name: str) -> ModuleType:
    """Import the module of that name. Raises BadInput if a module of another package cannot be imported."""
    added = _added(package.__name__).get(name)
    if added is None:
        return import_module(f"{package.__name__}.{name}")
    try:
        loaded = added.load()
    except Exception as error:  # code of another package may raise anything
        raise BadInput(
            f"{_of(added)} cannot be loaded: {type(error).__name__}: {error}. Mend or uninstall it"
        ) from error
    if not isinstance(loaded, ModuleType):
        raise BadInput(f"{_of(added)} is {type(loaded).__name__}, expected a module. Mend or uninstall it")
    return loaded


def rescan() -> None:
    """Look for entry points again, after packages were installed."""
    _added.cache_clear()


@cache
def _added(package: str) -> dict[str, EntryPoint]:
    """Entry points of a kind by name. Raises BadInput for a name that is already used."""
    group = f"warpfuse.{package.rpartition('.')[2]}"
    ours = {entry.name for entry in iter_modules(import_module(package).__path__)}
    added: dict[str, EntryPoint] = {}
    for one in entry_points(group=group):
        if one.name in ours or one.name in added:
            raise BadInput(f"{_of(one)}: the name is taken. Uninstall one of the two packages")
        added[one.name] = one
    return added


def _of(entry: EntryPoint) -> str:
    package = "" if entry.dist is None else f" of package {entry.dist.name}"
    return f"entry point {entry.name!r} of {entry.group}{package}"
