"""`warpfuse serve` and `warpfuse run --page`: real processes, from their first line to their last."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest
from support.waiting import until

pytest.importorskip("fastapi", reason="the control page needs the extra 'web'")

PATIENCE_S = 60


class Started:
    """The command in a process; its lines as they come."""

    def __init__(self, *arguments):
        command = [sys.executable, "-c", "from warpfuse.cli import main; main()", *map(str, arguments)]
        env = {**os.environ, "COLUMNS": "200"}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
        self._timer = threading.Timer(PATIENCE_S, self.process.kill)  # a process that says nothing ends the test
        self._timer.start()
        self.lines = []

    def line(self, pattern):
        """The match of the first line from here on that has the pattern."""
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError("".join(self.lines))

    def end(self, number=None):
        """Signal it, and its exit code."""
        if number is not None:
            self.process.send_signal(number)
        self.lines += list(self.process.stderr)
        code = self.process.wait()
        self._timer.cancel()
        return code


@pytest.fixture
def start():
    running = []

    def begin(*arguments):
        running.append(Started(*arguments))
        return running[-1]

    yield begin
    for one in running:
        one.process.kill()
        one.end()
        one.process.stderr.close()


def ask(url, body=None, method=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return json.loads(answer.read())


def test_serve_takes_the_flags_of_run_and_stays_until_it_is_told_to_go(start, exact_bundle, tmp_path):
    one = start("serve", "--port", "0", "--bundle", exact_bundle, "--size", "64x48", "--fusion", "0.5", "--osc", "0")
    url = one.line(r"control page: (http://127\.0\.0\.1:\d+/)$")[1]
    assert ask(url + "api/settings")["stages"]["fuse"]["weight"] == 0.5
    until(lambda: ask(url + "api/stats")["state"] == "running", "the first picture")
    settings = ask(url + "api/settings")
    assert settings["source"].endswith("demo.mp4") and settings["loop"], "the shipped clip, again and again"
    sink = tmp_path / "out.mp4"
    keys = {"source": "pattern:64x48@25,live=1,frames=100000", "sinks": [str(sink)]}
    assert ask(url + "api/restart", keys)["state"] == "running"
    assert one.end(signal.SIGINT) == 0
    assert sink.stat().st_size > 0, "the run was finished, and its file is whole"


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_who_may_be_anybody_by_osc_names_no_files(start, exact_bundle, tmp_path, host):
    """The loopback is the control."""
    (tmp_path / "clip.mp4").write_bytes(b"")
    one = start("serve", "--port", "0", "--bundle", exact_bundle, "--size", "64x48", "--osc", "0", "--osc-host", host)
    url = one.line(r"control page: (http://127\.0\.0\.1:\d+/)$")[1]
    until(lambda: ask(url + "api/stats")["state"] == "running", "the first picture")
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(url + "api/restart", {"source": str(tmp_path / "clip.mp4")})
    told = json.loads(refused.value.read())["error"]
    assert ("files can be named on the command line only" in told) == (host == "0.0.0.0")
    assert one.end(signal.SIGINT) == 0


def test_run_with_a_page_ends_with_its_run_and_writes_the_figures(start, exact_bundle, tmp_path):
    stats = tmp_path / "stats.json"
    flags = ("--bundle", exact_bundle, "--size", "64x48", "--page", "0", "--stats", stats)
    one = start("run", "--source", "pattern:64x48@25,frames=20", *flags)
    one.line("control page: http://127.0.0.1")
    assert one.end() == 0
    assert json.loads(stats.read_text())["frames"]["out"] == 20, "the page alone is sink enough"


def test_run_with_a_page_is_interrupted_as_any_run(start, exact_bundle):
    flags = ("--bundle", exact_bundle, "--size", "64x48", "--page", "0")
    one = start("run", "--source", "pattern:64x48@25,live=1,frames=100000", *flags)
    url = one.line(r"control page: (http://\S+)")[1]
    one.line("networks: exact")
    while ask(url + "api/stats")["state"] != "running":
        pass
    assert one.end(signal.SIGTERM) == 130


def test_a_page_for_others_asks_for_a_token_which_is_told_with_each_address_alone(start):
    one = start("serve", "--port", "0", "--host", "0.0.0.0")
    url, token = one.line(r"control page: (http://localhost:\d+/)\?token=(\S{32,})$").groups()
    with pytest.raises(urllib.error.HTTPError, match="401"):
        ask(url + "api/stats")
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    assert b"<title>warpfuse</title>" in opener.open(f"{url}?token={token}").read()
    assert opener.open(url + "api/stats").status == 200
    assert one.end(signal.SIGINT) == 0
    told = [line for line in one.lines if token in line]
    assert told and all(re.fullmatch(r"control page: http://[\w.]+:\d+/\?token=\S+\n", line) for line in told)
    assert len(set(told)) == len(told), "each address once, and no code where nobody looks at a terminal"


def test_what_cannot_be_served_is_told_in_one_line(command, monkeypatch, tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = command("serve", "--port", port)
    assert code == 2 and f"port {port}: Address already in use" in err and err.count("\n") == 1
    code, _, err = command("serve", "--strength", "7")
    assert code == 2 and "strength" in err
    code, _, err = command("run", "--source", tmp_path / "none.mp4", "--page", "0")
    assert code == 2 and "none.mp4" in err.splitlines()[-1]
    code, _, err = command("serve", "--stats", "x")
    assert code == 2 and "--stats" in err, "figures of a run are no business of serve"
    monkeypatch.setitem(sys.modules, "warpfuse.web.server", None)
    code, _, err = command("serve")
    assert code == 2 and "pip install 'warpfuse[web]'" in err
