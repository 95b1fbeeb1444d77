"""`warpfuse host` and `warpfuse ctl HOST add, remove, streams` against it, from the command line."""

import json
import signal
import subprocess
import sys

from support.waiting import until
from typer.testing import CliRunner

from warpfuse.cli import app

COMMAND = [sys.executable, "-c", "from warpfuse.cli import main; main()", "host"]


def ask(*words):
    result = CliRunner(env={"COLUMNS": "160"}).invoke(app, ["ctl", "yard", *words])
    if result.exception is not None:
        raise result.exception
    return result.output


def test_streams_of_different_sizes_join_and_leave_a_host_by_its_name(
    exact_bundle, short_folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("WARPFUSE_RUN", str(short_folder))
    stats = tmp_path / "stats.json"
    host = [*COMMAND, "--name", "yard", "--bundle", str(exact_bundle), "--stats", str(stats)]
    going = subprocess.Popen(host, stderr=subprocess.PIPE, text=True)
    try:
        for line in going.stderr:
            if "warpfuse ctl yard streams" in line:
                break
        live = "pattern:96x64@25,live=1,frames=1000000"
        assert ask("add", "--source", live, "--sink", "null:", "--stream", "gate") == "stream gate has joined\n"
        film = tmp_path / "door.mp4"
        ask("add", "--source", "pattern:64x48@25,frames=8", "--sink", str(film), "--stream", "door", "prompt=negative")
        until(lambda: "over" in ask("streams"), "the end of the film")
        listed = {line.split()[0]: line.split()[1:] for line in ask("streams").splitlines()[1:]}
        assert listed["door"] == ["64x48", "8", "8", "0", "0", "over"] and film.stat().st_size
        assert listed["gate"][0] == "96x64" and listed["gate"][-1] == "runs"
        ask("remove", "gate")
        assert "runs" not in ask("streams")
        ask("add", "--source", "pattern:64x96@25,frames=4", "--sink", "null:", "--stream", "late")
        until(lambda: ask("streams").count("over") == 3, "the end of the last")
        ask("stop")
        assert going.wait(60) == 130
    finally:
        going.send_signal(signal.SIGKILL)
        going.wait()
        going.stderr.close()
    frames = json.loads(stats.read_text())["frames"]
    assert frames["out"] >= 12 and frames["in"] + frames["repeated"] == frames["out"] + frames["dropped"]


def test_what_a_host_cannot_be_told_is_one_line(command, tmp_path):
    graph = tmp_path / "host.yaml"
    graph.write_text("source: pattern:96x64@25\n")
    said = "warpfuse: source: is each stream's own here: streams.NAME.source\n"
    assert command("host", graph)[::2] == (2, said)
    assert "unknown key" in command("host", "--set", "promt=ink")[2]
