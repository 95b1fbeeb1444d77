"""The command, run in this process, and the exact bundle to run it on."""

import sys

import exact
import pytest


@pytest.fixture(scope="session")
def exact_bundle(tmp_path_factory):
    """Folder of the bundle of `tests/graph/exact.py`."""
    return exact.write(tmp_path_factory.mktemp("bundles") / "exact")


@pytest.fixture
def command(monkeypatch, capsys):
    """command(*arguments) -> (exit code, stdout, stderr)."""
    from warpfuse import cli

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["warpfuse", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return run
