"""The command, run in this process."""

import logging
import sys
import threading

import pytest


@pytest.fixture
def command(monkeypatch, capsys, request):
    """command(*arguments) -> (exit code, stdout, stderr). The process's hooks are put back afterwards."""
    from warpfuse import cli

    make = logging.getLogRecordFactory()
    request.addfinalizer(lambda: logging.setLogRecordFactory(make))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["warpfuse", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return run
