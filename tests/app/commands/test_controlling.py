"""`warpfuse ctl` against a run of the command line."""

import json
import os
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from warpfuse.cli import app
from warpfuse.graph.errors import ConfigError

COMMAND = [sys.executable, "-c", "from warpfuse.cli import main; main()", "run"]


def ask(*words):
    result = CliRunner().invoke(app, ["ctl", "desk", *words])
    if result.exception is not None:
        raise result.exception
    return result.output


def test_a_run_is_changed_looked_at_and_ended_by_its_name(exact_bundle, short_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("WARPFUSE_RUN", str(short_folder))
    options = ["--sink", "null:", "--bundle", str(exact_bundle), "--realtime", "--workers", "one"]
    more = ["--name", "desk", "--stats", str(tmp_path / "s.json"), "--trace", str(tmp_path / "t.json")]
    cv2.imwrite(str(tmp_path / "key.png"), np.zeros((64, 96, 3), np.uint8))
    keyframe = ["--keyframe", str(tmp_path / "key.png"), "--set", "stages.anchor.weight=0"]
    run = [*COMMAND, "--source", "pattern:96x64@25,frames=1000000", *options, *more, *keyframe]
    going = subprocess.Popen(run, stderr=subprocess.PIPE, text=True)
    try:
        for line in going.stderr:
            if "warpfuse ctl desk stats" in line:
                break
        while json.loads(ask("stats"))["frames"]["out"] == 0:
            pass
        assert "version 1 holds from frame" in ask("set", "strength=0.5", "stages.fuse.weight=0.3")
        assert "version 2 holds from frame" in ask("set", "prompt=negative", "strength=1", "over_s=0.2")
        with pytest.raises(ConfigError, match="over_s: expected seconds"):
            ask("set", "prompt=same", "over_s=soon")
        assert json.loads(ask("get", "stages.fuse.weight")) == 0.3 and json.loads(ask("get"))["prompt"] == "negative"
        with pytest.raises(ConfigError, match="there is no 'wait'; there are: "):
            ask("get", "stages.fuse.wait")
        ask("save", "dark")
        ask("set", "prompt=same", "bpm=100")
        ask("save", str(tmp_path / "show.yaml"))
        ask("set", "bpm=90", "look=dark")
        assert json.loads(ask("get", "prompt")) == "negative"
        ask("load", str(tmp_path / "show.yaml"))
        assert json.loads(ask("get", "bpm")) == 100 and json.loads(ask("get", "looks.dark.prompt")) == "negative"
        (tmp_path / "other.yaml").write_text("bundle: other\nbpm: 90\n")
        with pytest.raises(ConfigError, match="the show is of bundle 'other'"):
            ask("load", str(tmp_path / "other.yaml"))
        told = CliRunner().invoke(app, ["ctl", "desk", "tap"], input="\n\n\n").stdout
        assert f"{json.loads(ask('get', 'bpm')):g} beats a minute" == told.splitlines()[-1]
        ask("snapshot", str(tmp_path / "shown.png"))
        assert cv2.imread(str(tmp_path / "shown.png")).shape == (64, 96, 3)
        with pytest.raises(ConfigError, match=r"stages.anchor.picture: /.*gone\.png: No such file"):
            ask("set", "stages.anchor.picture=gone.png")
        shown = CliRunner().invoke(app, ["graph", "desk"], env={"COLUMNS": "200"}).output
        assert "encode->predict" in shown and "frames/s" in shown
        second = subprocess.run(run, capture_output=True, text=True, timeout=60)
        assert second.returncode == 2 and "a run named 'desk' is under way" in second.stderr
        ask("stop")
        assert going.wait(30) == 130
    finally:
        going.send_signal(signal.SIGKILL)
        going.wait()
        going.stderr.close()
    figures = json.loads((tmp_path / "s.json").read_text())
    assert figures["frames"]["in"] == figures["frames"]["out"] + figures["frames"]["dropped"]
    assert any(
        event["name"].startswith("predict ") for event in json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    )
    assert not os.listdir(short_folder / "warpfuse")  # noqa: PTH208


@pytest.mark.parametrize(
    "words, says",
    [
        (["stats"], "there is no run named 'desk'; none is under way"),
        (["spot"], "'spot' is no action; known: set, get"),
        (["set"], "expected KEY=VALUE"),
        (["pause", "now"], "takes nothing more"),
        (["snapshot"], "expected one FILE.png"),
        (["save"], "expected the name of a look, or one FILE.yaml"),
        (["load"], "expected one FILE.yaml"),
        (["learn", "stregth", "--midi", "nano"], "key 'stregth': expected a number or a switch"),
        (["learn", "strength"], "expected KEY, tap or 'look NAME', and --midi PORT"),
        (["get", "a", "b"], "expected one KEY"),
        (["add"], "expected --source and --sink"),
        (["add", "--source", "pattern:"], "expected --source and --sink"),
        (["remove"], "expected the name of one stream"),
        (["stats", "--source", "pattern:"], "are for add"),
        (["set", "strength=1", "--midi", "nano"], "--midi is for learn"),
    ],
)
def test_what_cannot_be_asked_is_one_line(short_folder, monkeypatch, words, says):
    monkeypatch.setenv("WARPFUSE_RUN", str(short_folder))
    with pytest.raises(ConfigError, match=says):
        ask(*words)
