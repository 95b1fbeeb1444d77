"""Law: a run is planned, and its settings are validated, without torch."""

import json
import subprocess
import sys

IMPORTED = """
import importlib, json, pkgutil, sys
for name in json.loads(sys.argv[1]):
    module = importlib.import_module(name)
    for inner in pkgutil.iter_modules(getattr(module, "__path__", [])):
        importlib.import_module(f"{name}.{inner.name}")
print(json.dumps([name for name in ("torch", "numpy") if name in sys.modules]))
"""


def loaded_by(*modules):
    """Which of torch and numpy are loaded once these modules are, packages with all they hold."""
    asked = [sys.executable, "-c", IMPORTED, json.dumps(modules)]
    done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=300)
    return json.loads(done.stdout)


def test_planning_needs_no_torch_and_settings_no_numpy_either():
    assert "torch" not in loaded_by("warpfuse.graph.plan")
    kinds = ("diffusion", "motion", "controls")
    assert loaded_by(*(f"warpfuse.stages.{kind}.settings" for kind in kinds)) == []
    assert loaded_by("warpfuse.stages.diffusion.predict") == ["torch", "numpy"], "control"
