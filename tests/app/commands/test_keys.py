"""`warpfuse keys DIR` makes what links between hosts need, for its owner's eyes, and never over what is there."""

import stat

import pytest

from warpfuse import cli


def _run(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["warpfuse", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_a_pair_for_each_side_and_the_allow_list(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "keys"
    assert _run(monkeypatch, "keys", folder) == 0
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    assert files.keys() == {"server.key", "server.key_secret", "client.key", "client.key_secret", "allowed/client.key"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert files["client.key"].read_bytes() == files["allowed/client.key"].read_bytes()
    assert "server.key_secret" in capsys.readouterr().out


def test_keys_that_are_there_stay(tmp_path, monkeypatch, capsys):
    assert _run(monkeypatch, "keys", tmp_path) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.key*")}
    assert _run(monkeypatch, "keys", tmp_path) == cli.BAD_INPUT
    assert capsys.readouterr().err == (
        f"warpfuse: {tmp_path}/server.key exists. Remove the folder, or name another, to make new keys\n"
    )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.key*")} == before
