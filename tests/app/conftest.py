"""The command, run in this process."""

import sys

import pytest


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
