"""Hooks: a few lines of the user's, called where docs/hooks.md says, which cannot break a run or come by the page."""

import ast
from pathlib import Path

import numpy as np
import pytest

import warpfuse
from warpfuse.engine.errors import BadInput
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.live_settings import NeedsRestart
from warpfuse.graph.run import run
from warpfuse.stages.hooks.hooks_file import NAMES, PLACES

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "hooks.py"
SIZE = (64, 48)
PICTURES = [np.full((48, 64, 3), value, np.uint8) for value in (100, 140, 60)]


@pytest.fixture
def hooks(tmp_path):
    """hooks(text) -> the path of a file with it."""

    def write(text):
        file = tmp_path / "mine.py"
        file.write_text(text)
        return str(file)

    return write


def shown(bundle, file="", change=None, **keys):
    keys = {"prompt": "same", "bundle": bundle, "size": SIZE, "hooks": file, **keys}
    with warpfuse.Pipeline(**keys) as pipeline:
        out = [pipeline.push(picture) for picture in PICTURES[:2]]
        if change is not None:
            pipeline.update(**change)
        return [*out, pipeline.push(PICTURES[2])]


NOTHING = "".join(f"def {place}(given, stamp):\n    return given\n" for place in PLACES)
NONE = "".join(f"def {name}(*given):\n    pass\n" for name in NAMES)


@pytest.mark.parametrize("text", [NOTHING, NONE, NOTHING + "def settings(keys):\n    return keys\n"])
def test_an_empty_hook_changes_nothing_to_the_byte(exact_bundle, hooks, text):
    with_hooks, without = (shown(exact_bundle, file, {"prompt": "negative"}) for file in (hooks(text), ""))
    assert all(np.array_equal(one, other) for one, other in zip(with_hooks, without, strict=True))


@pytest.mark.parametrize("place, line", [("source", "rgb * 0.5"), ("x0", "rgb * 0.5"), ("picture", "rgb * 0.5")])
def test_the_control_what_a_hook_gives_is_seen(exact_bundle, hooks, place, line):
    """`same` shows the source, so half of it at any place is another picture."""
    changed = shown(exact_bundle, hooks(f"def {place}(rgb, stamp):\n    return {line}\n"), fusion=0)
    assert all(np.abs(one.astype(int) - other).min() > 5 for one, other in zip(changed, PICTURES, strict=True))


def test_each_is_called_with_its_frame_and_in_place_changes_stay_with_it(exact_bundle, hooks, tmp_path):
    """What the hook of the picture spoils is not fed back, nor what that of the source spoils without giving it."""
    told = tmp_path / "told"
    file = hooks(
        "def source(rgb, stamp):\n    rgb.zero_()\n"
        f"def picture(rgb, stamp):\n    with open({str(told)!r}, 'a') as file:\n"
        "        file.write(f'{stamp.seq} {tuple(rgb.shape)}\\n')\n"
    )
    without = shown(exact_bundle)
    assert all(np.array_equal(a, b) for a, b in zip(shown(exact_bundle, file), without, strict=True))
    assert told.read_text().splitlines() == [f"{seq} (1, 3, 48, 64)" for seq in range(3)]


def test_settings_turn_one_change_into_another(exact_bundle, hooks):
    file = hooks("def settings(keys):\n    return {'prompt': 'negative'} if keys.get('strength') == 1 else keys\n")
    out = shown(exact_bundle, file, {"strength": 1.0}, fusion=0)
    assert np.array_equal(out[1], PICTURES[1]) and np.array_equal(out[2], 255 - PICTURES[2])


BROKEN = [
    (
        "def picture(rgb, stamp):\n    pass\n    return rgb / 0 if stamp.seq else 1 / 0\n",
        ":3: ZeroDivisionError: division by zero",
    ),
    ("def helps():\n    raise KeyError('a')\ndef source(rgb, stamp):\n    helps()\n", ":2: KeyError: 'a'"),
    ("def x0(z, stamp):\n    return z[..., :1]\n", ":1: expected a tensor of torch.float32 [1, "),
    (
        "def picture(rgb, stamp):\n    return rgb.numpy()\n",
        ":1: expected a tensor of torch.float32 [1, 3, 48, 64] on cpu, got ndarray",
    ),
]


@pytest.mark.parametrize("text, says", BROKEN)
def test_a_hook_that_breaks_is_one_line_with_its_place_and_the_run_goes_on_without_it(exact_bundle, hooks, text, says):
    told, file = [], hooks(text)
    keys = {"source": "pattern:64x48@25,frames=5", "sinks": ["null:"], "bundle": exact_bundle, "prompt": "same"}
    stats = run(validate({**keys, "hooks": file}), say=told.append)
    assert (stats.frames.out, stats.frames.dropped) == (5, 0)
    lines = [line for line in told if "goes on without" in line]
    assert len(lines) == 1 and f"{file}{says}" in lines[0] and "\n" not in lines[0]


def test_settings_that_break_leave_a_change_as_it_was(exact_bundle, hooks):
    file = hooks("def settings(keys):\n    return keys['nothing']\n")
    assert np.array_equal(shown(exact_bundle, file, {"prompt": "negative"}, fusion=0)[2], 255 - PICTURES[2])


UNUSABLE = [
    ("def picture(rgb, stamp)\n", r"mine\.py:1: expected ':'"),
    ("def pictures(rgb):\n    pass\n", "expected a function of source, x0, picture, settings, got pictures"),
    ("import nowhere\ndef picture(rgb, stamp):\n    pass\n", r"mine\.py:1: ModuleNotFoundError"),
    ("def picture(rgb, stamp):\n    pass\npicture = 3\n", "picture is no function"),
]


@pytest.mark.parametrize("text, says", UNUSABLE)
def test_a_file_that_cannot_be_used_keeps_the_run_from_starting_in_one_line(exact_bundle, hooks, text, says):
    with pytest.raises(BadInput, match=says) as refused:
        shown(exact_bundle, hooks(text))
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_told(exact_bundle):
    with pytest.raises(BadInput, match=r"hooks: nowhere\.py: No such file"):
        shown(exact_bundle, "nowhere.py")


def test_drawing_a_graph_runs_no_code_of_the_file(hooks, tmp_path):
    from warpfuse.graph.plan.planner import plan_graph

    file = hooks(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef picture(rgb, stamp):\n    pass\n")
    plan = plan_graph(validate({"source": "in.mp4", "sinks": ["null:"], "hooks": file}))
    assert any(node.name == "hook_picture" for node in plan.nodes) and not (tmp_path / "ran").exists()


def test_the_examples_of_the_documentation_are_one_of_each_and_change_the_picture(exact_bundle):
    tree = ast.parse(EXAMPLE.read_text())
    assert {node.name for node in tree.body if isinstance(node, ast.FunctionDef)} == set(NAMES)
    out = shown(exact_bundle, str(EXAMPLE), {"strength": 0.8}, fusion=0)
    for one, other in zip(out, PICTURES, strict=True):
        assert one[0].mean() < 0.8 * one[1].mean(), "a dark line in four"
        assert one[1].mean() > other[1].mean(), "lighter than the source"


def test_neither_a_change_nor_a_look_names_hooks(exact_bundle, hooks):
    with warpfuse.Pipeline(prompt="same", bundle=exact_bundle, size=SIZE) as pipeline:
        pipeline.push(PICTURES[0])
        with pytest.raises(NeedsRestart, match="hooks cannot change while frames flow"):
            pipeline.update(hooks=hooks(NONE))
    with pytest.raises(ConfigError, match="a look holds no hooks"):
        validate({"source": "a.mp4", "looks": {"calm": {"hooks": "mine.py"}}})
