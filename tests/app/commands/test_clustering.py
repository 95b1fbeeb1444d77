"""`warpfuse cluster`: what goes where, what finds no room, and what is wrong before anything is started."""

import pytest

FILE = """
cluster: {reserve: 1}
pools: {cards: {gpu: L4, megapixel_ms: 100, frame_ms: 0}}
streams:
  yard: {source: "rtsp://10.0.1.11/1", sinks: ["null:"], fps: 15, size: 512x288}
  door: {source: "rtsp://10.0.1.12/1", sinks: ["null:"], fps: 15, size: 512x288, needs: {site: north}}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text(FILE)
    return path


def test_a_plan_says_what_goes_where(command, file):
    code, out, _ = command("cluster", "plan", file, "--node", "a=L4,site=north", "--node", "b=L4:2")
    assert code == 0
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()[1:]}
    assert rows["a:0"] == ["L4", "door", "0.22"] and sorted(rows) == ["a:0", "b:0", "b:1"]
    assert sorted(row[1] for row in rows.values()) == ["-", "door", "yard"]


def test_a_stream_without_room_is_one_line_and_an_exit_code(command, file):
    code, out, _ = command("cluster", "plan", file, "--node", "a=L4")
    assert code == 2 and out.splitlines()[-1] == "no host has the label site=north; known: none of that name"


@pytest.mark.parametrize(
    "nodes, says",
    [
        ([], "no host: give --node NAME=KIND"),
        (["--node", "a"], "--node 'a': expected NAME=KIND"),
        (["--node", "a=L4,north"], "--node 'a=L4,north': expected NAME=KIND"),
        (["--node", "a=L4", "--node", "a=L4"], "--node a: is given twice"),
    ],
)
def test_a_host_that_cannot_be_read_is_told(command, file, nodes, says):
    code, _, err = command("cluster", "plan", file, *nodes)
    assert code == 2 and says in err and err.count("\n") == 1


def test_a_password_in_a_cluster_file_is_refused(command, file):
    file.write_text(FILE.replace("rtsp://10.0.1.11", "rtsp://me:hunter2@10.0.1.11"))
    code, out, err = command("cluster", "plan", file, "--node", "a=L4")
    assert code == 2 and "write ${secret:yard} in its place" in err and "hunter2" not in out + err


@pytest.mark.parametrize("head", ["", ":6379", "10.0.0.1:", "10.0.0.1:head", "10.0.0.1:99999", "fe80::1"])
def test_a_head_that_cannot_be_read_is_one_line(command, head):
    code, _, err = command("cluster", "join", head)
    assert (code, err) == (2, f"warpfuse: {head!r}: expected HEAD or HEAD:PORT, as in 10.0.0.1:6379\n")


def test_a_node_without_the_token_or_a_head_is_told(command, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'warpfuse[cluster]'")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    code, _, err = command("cluster", "join", "127.0.0.1:1")
    assert code == 2 and "the token of the cluster is missing: copy it from the head to" in err
    (tmp_path / "warpfuse" / "cluster" / "token").write_text("0" * 64)
    code, _, err = command("cluster", "join", "127.0.0.1:1")
    assert code == 2 and "no head answers at 127.0.0.1:1 (Connection refused)" in err


@pytest.mark.parametrize("word", ["status", "down", "drain", "move"])
def test_a_cluster_that_is_not_there_is_one_line(command, tmp_path, monkeypatch, word):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    words = {"drain": ["a"], "move": ["yard", "a:0"]}.get(word, [])
    code, _, err = command("cluster", word, *words)
    assert (code, err) == (2, "warpfuse: which cluster? none has its head here\n")
    assert "no run named 'farm'" in command("cluster", word, *words, "--cluster", "farm")[2]
