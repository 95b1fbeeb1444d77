"""Sources, sinks, stages, solvers and backends from packages outside this one, by their entry points."""

import importlib
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

import warpfuse
from warpfuse.engine import registry
from warpfuse.engine.errors import BadInput
from warpfuse.engine.open import backend_names, open_engine
from warpfuse.graph.plan.config import validate
from warpfuse.graph.run import run
from warpfuse.stages.solvers import open_solver, solver_names

FILES = {
    "source.py": """
from fractions import Fraction
import numpy as np
from warpfuse.stages.frame import Picture, RawFrame, Stamp
from warpfuse.stages.stage import VideoInfo
SCHEMES = ("teletext",)
def probe(url):
    return VideoInfo(64, 48, Fraction(25), Fraction(1, 25), 3)
def open(url, size, frames, **options):
    return Source(size or (64, 48), frames or 3)
class Source:
    warning = None
    def __init__(self, size, frames):
        self.size, self.frames, self.seq, self.info = size, frames, 0, probe("")
    def read(self):
        if self.seq == self.frames:
            return None
        self.seq += 1
        rgb = np.full((self.size[1], self.size[0], 3), 40 * self.seq, np.uint8)
        return RawFrame(Stamp(self.seq - 1, (self.seq - 1) * 40_000_000), rgb)
    def close(self):
        pass
""",
    "sink.py": """
SCHEMES = ("pigeon",)
SENT = []
def check(url, source=None):
    pass
def open(url, info, size, sound_from=None, **options):
    return Sink()
class Sink:
    notes = []
    def write(self, frame):
        SENT.append(frame.rgb.copy())
    def close(self, complete):
        pass
""",
    "solver.py": "from warpfuse.stages.solvers.euler import open\n",
    "backend.py": """
from warpfuse.engine.backends import onnxruntime
missing = onnxruntime.missing
open = onnxruntime.open
""",
    "number.py": "VALUE = 7\n",
    "dimmer.py": """
from pydantic import Field
from warpfuse.stages.frame import Picture
from warpfuse.stages.settings import StageSettings
from warpfuse.stages.stage import Stage
AT = "picture"
class Settings(StageSettings):
    by: float = Field(0.5, ge=0, le=1)
def open(opening):
    return Dimmer(opening.config.stages.added["dimmer"])
class Dimmer(Stage):
    def __init__(self, settings):
        self.settings = settings
    def __call__(self, frame):
        return Picture(frame.stamp, frame.rgb * (1 - self.settings.by))
    def update(self, settings):
        self.settings = settings
""",
    "early.py": "from postal.dimmer import *\nAT = 'source'\n",
}


TELETEXT = [("sources", "teletext", "postal.source"), ("sinks", "pigeon", "postal.sink")]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a package `postal` with these entry points; returns nothing."""

    def install(points):
        folder = tmp_path / "postal"
        folder.mkdir()
        (folder / "__init__.py").touch()
        for name, text in FILES.items():
            (folder / name).write_text(text)
        about = tmp_path / "postal-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: postal\nVersion: 1.0\n")
        lines = [f"[warpfuse.{group}]\n{name} = {value}\n" for group, name, value in points]
        (about / "entry_points.txt").write_text("\n".join(lines))
        monkeypatch.syspath_prepend(str(tmp_path))
        registry.rescan()

    yield install
    registry.rescan()
    for name in [name for name in sys.modules if name.partition(".")[0] == "postal"]:
        del sys.modules[name]


def test_a_source_and_a_sink_of_another_package_run(installed, exact_bundle):
    keys = {"source": "teletext:", "sinks": ["pigeon:"], "bundle": exact_bundle, "size": (64, 48), "prompt": "same"}
    with pytest.raises(BadInput, match="pigeon"):
        run(validate(keys))
    installed(TELETEXT)
    stats = run(validate(keys | {"fusion": 0}))
    sent = importlib.import_module("postal.sink").SENT
    assert stats.frames.out == len(sent) == 3
    assert [int(rgb[0, 0, 0]) for rgb in sent] == [40, 80, 120] and all(np.ptp(rgb) == 0 for rgb in sent)


@pytest.mark.parametrize("module", ["dimmer", "early"])
@pytest.mark.parametrize("workers", ["one", "stages"])
def test_a_stage_of_another_package_runs_where_it_says(installed, exact_bundle, module, workers, monkeypatch, tmp_path):
    installed([("stages", "dimmer", f"postal.{module}"), ("sources", "teletext", "postal.source")])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    shown = []
    for stages in ({}, {"dimmer": {"by": 0.25}}):
        out = tmp_path / f"{len(shown)}"
        keys = {"source": "teletext:", "bundle": exact_bundle, "size": (64, 48), "fusion": 0, "prompt": "same"}
        config = validate(keys | {"sinks": [f"{out}/%03d.png"], "stages": stages, "workers": workers})
        assert validate(config.model_dump(mode="json")) == config, "as a worker is told it"
        run(config)
        shown.append([int(np.array(Image.open(path))[0, 0, 0]) for path in sorted(out.iterdir())])
    assert shown == [[40, 80, 120], [30, 60, 90]]


def test_a_stage_of_another_package_takes_new_settings_between_two_frames(installed, exact_bundle):
    installed([("stages", "dimmer", "postal.dimmer")])
    picture = np.full((48, 64, 3), 200, np.uint8)
    keys = {"bundle": exact_bundle, "size": (64, 48), "fusion": 0, "prompt": "same"}
    with warpfuse.Pipeline(**keys, stages={"dimmer": {"by": 0}}) as pipeline:
        values = [int(pipeline.push(picture)[0, 0, 0])]
        for by in (0.5, 1.0):
            pipeline.update(stages={"dimmer": {"by": by}})
            values.append(int(pipeline.push(picture)[0, 0, 0]))
    assert values == [200, 100, 0]


def test_keys_of_a_stage_are_checked_and_without_its_package_it_is_unknown(installed):
    with pytest.raises(BadInput, match=r"unknown key 'stages\.dimmer'"):
        validate({"stages": {"dimmer": {"by": 0.5}}})
    with pytest.raises(BadInput, match=r"stages: no installed package has the stage dimmer"):
        validate({"stages": {"added": {"dimmer": {"by": 0.5}}}})  # as a worker is told
    installed([("stages", "dimmer", "postal.dimmer")])
    with pytest.raises(BadInput, match=r"by: input should be less than or equal to 1, got 2"):
        validate({"stages": {"dimmer": {"by": 2}}})


@pytest.mark.parametrize("name, value, said", [("warp", "postal.dimmer", "taken"), ("seven", "postal.solver", "no AT")])
def test_a_stage_that_cannot_be_one_is_told(installed, name, value, said):
    installed([("stages", name, value)])
    with pytest.raises(BadInput, match=f"stage '{name}' of .*{said}"):
        validate({"stages": {"seven": {}}})


def test_a_solver_of_another_package_is_found_by_its_name(installed):
    assert "tidal" not in solver_names()
    installed([("solvers", "tidal", "postal.solver")])
    assert "tidal" in solver_names() and open_solver("tidal") is not None


def test_a_backend_of_another_package_runs_a_network(installed, tmp_path):
    assert "abacus" not in backend_names()
    installed([("backends", "abacus", "postal.backend")])
    assert "abacus" in backend_names() and "onnxruntime" in backend_names()
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "negate", value[:1], value[1:])
    path = tmp_path / "negate.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    engine = open_engine(path, "abacus")
    assert [spec.name for spec in engine.inputs] == ["x"]
    engine.close()


@pytest.mark.parametrize(
    "group, name, value, said",
    [
        ("solvers", "gone", "postal.nowhere", "cannot be loaded: ModuleNotFoundError"),
        ("solvers", "seven", "postal.number:VALUE", "is int, expected a module"),
        ("solvers", "ddim", "postal.solver", "the name is taken"),
    ],
)
def test_one_that_cannot_be_used_is_told_by_name(installed, group, name, value, said):
    installed([(group, name, value)])
    with pytest.raises(BadInput, match=f"entry point '{name}' of warpfuse.{group} of package postal.*{said}"):
        solver_names()
