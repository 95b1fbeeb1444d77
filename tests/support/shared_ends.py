"""Both ends of a link between processes, in one process: fixtures `folder` and `connect`, and `pump`."""

import pytest
import zmq

from warpfuse.graph.links.link_plan import LinkPlan
from warpfuse.graph.links.shared_memory import RunFolder
from warpfuse.graph.links.transports import open_inlet, open_outlet

_QUIET_MS = 100


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WARPFUSE_SHM", str(tmp_path))
    with RunFolder("test") as made:
        yield made


@pytest.fixture
def connect(tmp_path, folder):
    context, ends = zmq.Context(), []

    def opened(epoch=1, **options):
        options = {"transport": "shm", "endpoint": f"ipc://{tmp_path}/link", **options}
        plan = LinkPlan("a->b.frame", "a", "b", "frame", **options)
        inlet = open_inlet(context, plan, epoch)
        outlet = open_outlet(context, plan, epoch, folder=folder)
        ends.extend((outlet, inlet))
        pump(outlet, inlet)
        return outlet, inlet

    yield opened
    for end in ends:
        end.close()
    context.destroy(0)


def pump(outlet, inlet):
    """Handle messages until both ends are quiet: they come through the kernel, in their own time."""
    poller = zmq.Poller()
    for end in (outlet, inlet):
        poller.register(end.socket, zmq.POLLIN)
    while poller.poll(_QUIET_MS):
        outlet.receive()
        inlet.receive()
