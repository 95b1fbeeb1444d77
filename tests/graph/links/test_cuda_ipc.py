"""Between processes on one card; and where there is none, the next transport, said in a line."""

import multiprocessing

import pytest
import torch
import zmq

from warpfuse.graph.errors import TransportMissing
from warpfuse.graph.links import cuda_ipc
from warpfuse.graph.links.link_plan import LinkPlan
from warpfuse.graph.links.transports import best, open_inlet, open_outlet
from warpfuse.stages.borrowed import is_borrowed
from warpfuse.stages.frame import Latent, Stamp


def _plan(tmp_path):
    return LinkPlan("a->b.x", "a", "b", "x", transport="cuda-ipc", endpoint=f"ipc://{tmp_path}/card")


def test_without_a_card_the_transport_is_refused_with_a_reason(tmp_path):
    with pytest.raises(TransportMissing, match=r"transport cuda-ipc: cpu is no card\. Use shm"):
        open_inlet(None, _plan(tmp_path), 1, device="cpu")


def test_the_next_transport_is_taken_and_said(monkeypatch):
    monkeypatch.setattr(cuda_ipc, "missing", lambda device: "no CUDA device was found")
    said = []
    assert best("cuda-ipc", device="cuda:0", say=said.append) == "shm"
    assert said == ["no cuda-ipc between processes: no CUDA device was found. Frames go through shared memory"]
    assert best("shm", say=said.append) == "shm"
    assert len(said) == 1


def _sums(tmp_path, results):
    """A reader on the card: the sum of every frame, read late, and whether it lay in lent memory."""
    context = zmq.Context()
    stream = torch.cuda.Stream("cuda:0")
    inlet = open_inlet(context, _plan(tmp_path), 1, device="cuda:0")
    sums, lent = [], True
    with torch.cuda.stream(stream):
        while not (inlet.ended and not inlet.ready):
            inlet.socket.poll(0 if inlet.ready else 30_000)
            inlet.receive()
            while inlet.ready:
                x = inlet.take().z
                lent = lent and is_borrowed(x)
                torch.cuda._sleep(2_000_000)
                sums.append(x.sum())
                inlet.done()
        results.put(([float(total) for total in sums], lent))
        inlet.bye()
        del x
        inlet.close()
    context.term()


@pytest.mark.gpu
@pytest.mark.parametrize("guarded", [True, False])
def test_a_late_reader_on_the_card_sees_every_frame_whole(cuda, tmp_path, guarded, monkeypatch):
    """Its stream reads long after `done`; without the wait for free[k] the sender writes over what it reads."""
    reason = cuda_ipc.missing(cuda)
    if reason is not None:
        pytest.skip(f"no CUDA IPC here: {reason}")
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    worker = spawn.Process(target=_sums, args=(tmp_path, results))
    worker.start()
    context = zmq.Context()
    outlet = open_outlet(context, _plan(tmp_path), 1, device=cuda)
    if not guarded:
        monkeypatch.setattr(torch.cuda.Stream, "wait_event", lambda *_: None)
    try:
        with torch.cuda.stream(torch.cuda.Stream(cuda)):
            for seq in range(24):
                while outlet.blocked:
                    assert outlet.socket.poll(60_000), "the reader does not return slots"
                    outlet.receive()
                outlet.offer(seq, Latent(Stamp(seq, 0), torch.full((1 << 20,), float(seq), device=cuda)))
            outlet.finish()
            while not outlet.finished:
                assert outlet.socket.poll(60_000), "the reader does not return slots"
                outlet.receive()
        sums, lent = results.get(timeout=60)
    finally:
        worker.join(60)
        outlet.close()
        context.destroy(0)
    whole = sums == [float(seq * (1 << 20)) for seq in range(24)]
    assert lent
    assert whole == guarded  # False guards the test itself
