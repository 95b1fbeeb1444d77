"""What workers share is loaded before they are forked."""

import json
import os
import socket

import pytest

from warpfuse.graph.processes.fork_server import ForkServer


@pytest.mark.parametrize(("loops", "done"), [(True, ["loaded", "forked"]), (False, ["forked"])])
def test_loops_are_loaded_before_the_fork_and_where_asked_for(monkeypatch, tmp_path, loops, done):
    happened = []
    monkeypatch.setattr(os, "fork", lambda: happened.append("forked") or 4711)
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        server = ForkServer(there, lambda endpoint, name: 0, tmp_path, lambda: happened.append("loaded"))
        server._obey({"start": "main", "endpoint": "ipc://nowhere", "loops": loops})
        assert json.loads(here.recv(1000)) == {"started": "main", "pid": 4711}
    assert happened == done
