"""Between processes: one copy of a picture, read where it lies; what was overwritten or never agreed is noticed."""

import dataclasses
import multiprocessing
import signal

import numpy as np
import pytest
import torch
import zmq
from support.shared_ends import pump

from warpfuse.graph.errors import LinkCut, TransportMissing
from warpfuse.graph.links import messages
from warpfuse.graph.links.link_plan import LinkPlan
from warpfuse.graph.links.shared_memory import RunFolder
from warpfuse.graph.links.transports import open_inlet, open_outlet
from warpfuse.stages.borrowed import is_borrowed, owned
from warpfuse.stages.frame import Frame, Latent, Motion, Picture, RawFrame, Stamp


def stamp(seq):
    return Stamp(seq, seq * 40, 7, seq == 2, seq == 3, 3, "warp")


def frame(seq, x):
    return Latent(stamp(seq), x)


@pytest.mark.parametrize("transport", ["shm", "inline"])
def test_what_arrives_is_what_was_sent_to_the_bit_and_to_the_layout(connect, transport):
    outlet, inlet = connect(transport=transport)
    x = torch.randn(1, 3, 5, 7)
    sent = [
        RawFrame(Stamp(0, 0, 7), np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)),
        Frame(stamp(1)),
        Picture(stamp(2), x, x.half(), x.bfloat16(), x.to(memory_format=torch.channels_last)),
        Picture(stamp(3), x.permute(0, 2, 3, 1), x[..., :1].expand(1, 3, 5, 7), x[..., 1:], cell_trust=x[:0]),
        Motion(stamp(4), x > 0, torch.arange(5)),
        Latent(stamp(5), torch.tensor(2.5)),
    ]
    for value in sent:
        outlet.offer(value.stamp.seq, value)
        pump(outlet, inlet)
        got = inlet.take()
        assert got.stamp == value.stamp
        if isinstance(value, RawFrame):
            np.testing.assert_array_equal(got.rgb, value.rgb)
        else:
            assert type(got) is type(value) and list(got.tensors) == list(value.tensors)
            for name, tensor in value.tensors.items():
                assert got.tensors[name].dtype == tensor.dtype
                assert torch.equal(got.tensors[name], tensor)
        if value.stamp.seq == 2:
            assert got.trust.stride() == value.trust.stride() != x.stride()
        if value.stamp.seq == 3:
            assert got.rgb.stride() == value.rgb.stride() != x.stride()
        del got
        inlet.done()
        pump(outlet, inlet)
    assert (outlet.refused, inlet.refused, outlet.store.in_use) == (0, 0, 0)


def test_a_picture_is_copied_once_by_the_sender_and_never_by_the_reader(connect):
    outlet, inlet = connect()
    picture = np.random.default_rng(0).integers(0, 255, (64, 48, 3), np.uint8)
    addresses = set()
    for seq in range(8):
        outlet.offer(seq, RawFrame(Stamp(seq, 0), picture))
        pump(outlet, inlet)
        got = inlet.take()
        assert is_borrowed(got.rgb)
        addresses.add(got.rgb.__array_interface__["data"][0])
        del got
        inlet.done()
        pump(outlet, inlet)
    assert (outlet.store.copies, outlet.store.copied_bytes) == (8, 8 * picture.nbytes)
    assert len(addresses) <= outlet.plan.slots, "the reader's pictures lie in the slots themselves"


def test_a_frame_that_is_taken_lies_in_the_memory_the_sender_writes(connect):
    outlet, inlet = connect()
    outlet.offer(0, frame(0, torch.zeros(16)))
    pump(outlet, inlet)
    x = inlet.take().z
    ((table, _),) = outlet.store._tables.values()
    table.views(0, inlet._held.content.planes)[0].fill_(3)
    assert x.tolist() == [3.0] * 16


@pytest.mark.parametrize("overwritten", [True, False])
def test_a_slot_that_is_filled_while_it_is_read_is_noticed(connect, overwritten):
    outlet, inlet = connect()
    outlet.offer(0, frame(0, torch.zeros(4)))
    pump(outlet, inlet)
    inlet.take()
    if overwritten:  # a sender that does not keep to the rules
        outlet.store.free(outlet._lent[1, 0])
        for seq in range(1, 5):
            outlet.store.free(outlet.store.fill(seq, frame(seq, torch.ones(4))).message)
        with pytest.raises(LinkCut, match="filled again"):
            inlet.done()
    else:
        inlet.done()
    assert inlet.torn == overwritten


def test_a_larger_frame_gets_a_larger_table_and_the_old_one_goes(connect, folder):
    outlet, inlet = connect(mailbox=2)
    outlet.offer(0, frame(0, torch.zeros(10)))
    outlet.offer(1, frame(1, torch.ones(5000)))
    pump(outlet, inlet)
    first = inlet.take().z
    assert len(list(folder.path.glob("a_b_frame.*"))) == 2
    assert first.tolist() == [0.0] * 10
    inlet.done()
    pump(outlet, inlet)
    assert inlet.take().z.sum() == 5000
    assert [path.name for path in folder.path.glob("a_b_frame.*")] == ["a_b_frame.1.2"]


def test_what_is_kept_outlives_its_slot_and_what_is_not_does_not(connect):
    outlet, inlet = connect()
    for seq in range(5):
        outlet.offer(seq, frame(seq, torch.full((4,), float(seq))))
        pump(outlet, inlet)
        taken = inlet.take()
        if seq == 0:
            held, view = owned(taken), taken
        inlet.done()
        pump(outlet, inlet)
    assert held.z.tolist() == [0.0] * 4
    assert view.z.tolist() != [0.0] * 4, "the control: slots are filled again"
    assert owned(held) is held


def test_memory_is_no_longer_lent_when_the_last_view_is_gone(connect):
    from warpfuse.stages import borrowed

    before = {*borrowed._ranges}  # another test may have left a view behind
    outlet, inlet = connect()
    outlet.offer(0, frame(0, torch.ones(4)))
    pump(outlet, inlet)
    x = inlet.take().z
    inlet.done()
    inlet.close()
    outlet.close()
    assert {*borrowed._ranges} > before
    assert x.sum() == 4, "the mapping lives as long as a view of it"
    again = torch.from_numpy(np.frombuffer(x.numpy(), np.float32))
    assert is_borrowed(again)
    del x, again
    assert {*borrowed._ranges} <= before


def test_an_end_is_made_again_with_a_higher_epoch_and_the_old_one_is_ignored(connect):
    old_outlet, old_inlet = connect(epoch=1)
    old_outlet.offer(0, frame(0, torch.zeros(4)))
    pump(old_outlet, old_inlet)
    old_inlet.take()
    old_outlet.close()
    outlet, inlet = connect(epoch=2)
    outlet.offer(0, frame(0, torch.ones(4)))
    pump(outlet, inlet)
    old_inlet.done()  # a credit of an older life, to whoever listens
    pump(outlet, inlet)
    assert inlet.take().z.sum() == 4
    inlet.done()
    pump(outlet, inlet)
    assert (outlet.refused, inlet.refused, outlet.store.in_use) == (0, 0, 0)


def test_the_end_waits_until_the_memory_is_back(connect):
    outlet, inlet = connect()
    outlet.offer(0, frame(0, torch.ones(4)))
    outlet.finish()
    pump(outlet, inlet)
    assert (inlet.ended, outlet.finished, outlet.expecting) == (True, False, True)
    inlet.take()
    inlet.done()
    pump(outlet, inlet)
    assert (outlet.finished, outlet.expecting) == (True, False)


def test_the_time_of_sending_and_drops_travel_with_the_frame(connect):
    outlet, inlet = connect(policy="latest", credits=1)
    for seq in range(4):
        outlet.offer(seq, Frame(stamp(seq)), 10 + seq)
    pump(outlet, inlet)
    inlet.take()
    assert (inlet.sent_ns, inlet.dropped) == (10, {})
    inlet.done()
    pump(outlet, inlet)
    assert inlet.take().stamp.seq == 3
    assert (inlet.sent_ns, inlet.dropped) == (13, {"late": 2})


def test_a_link_inside_a_process_cannot_be_opened_from_one_side():
    plan = LinkPlan("a->b.frame", "a", "b", "frame")
    with pytest.raises(TransportMissing, match="inside a process"):
        open_inlet(None, plan, 1)


def _echo(endpoints, root, transport):
    """A worker: takes from one link, doubles, sends on the other, until the end."""
    import os

    os.environ["WARPFUSE_SHM"] = root
    context = zmq.Context()
    into, onto = (LinkPlan(n, "a", "b", "x", transport=transport, endpoint=e) for n, e in endpoints.items())
    with RunFolder("echo") as folder:
        inlet = open_inlet(context, into, 1)
        outlet = open_outlet(context, onto, 1, folder=folder)
        while not (inlet.ended and not inlet.ready):
            inlet.socket.poll(None if not inlet.ready else 0)
            inlet.receive()
            while inlet.ready:
                value = inlet.take()
                outlet.receive()
                out = Latent(value.stamp, value.z * 2)
                inlet.done()
                while outlet.blocked:
                    outlet.socket.poll()
                    outlet.receive()
                outlet.offer(out.stamp.seq, out)
        inlet.bye()
        outlet.finish()
        while not outlet.finished:
            outlet.socket.poll()
            outlet.receive()
        inlet.close()
        outlet.close()
    context.destroy(0)


@pytest.mark.parametrize("transport", ["shm", "inline"])
def test_frames_go_to_another_process_and_back(tmp_path, folder, transport):
    endpoints = {"there": f"ipc://{tmp_path}/there", "back": f"ipc://{tmp_path}/back"}
    there, back = (LinkPlan(n, "a", "b", "x", transport=transport, endpoint=e) for n, e in endpoints.items())
    worker = multiprocessing.get_context("spawn").Process(target=_echo, args=(endpoints, str(tmp_path), transport))
    worker.start()
    context = zmq.Context()
    outlet, inlet = open_outlet(context, there, 1, folder=folder), open_inlet(context, back, 1)
    poller = zmq.Poller()
    for end in (outlet, inlet):
        poller.register(end.socket, zmq.POLLIN)
    got, seq = [], 0
    try:
        while not (inlet.ended and not inlet.ready):
            while seq < 40 and not outlet.blocked:
                outlet.offer(seq, Latent(Stamp(seq, seq), torch.full((1000,), float(seq))))
                seq += 1
                if seq == 40:
                    outlet.finish()
            assert poller.poll(30_000), "nothing came for 30 s"
            outlet.receive()
            inlet.receive()
            while inlet.ready:
                value = inlet.take()
                got.append((value.stamp.seq, float(value.z.mean())))
                inlet.done()
        inlet.bye()
        worker.join(30)
        assert worker.exitcode == 0
        assert got == [(n, 2.0 * n) for n in range(40)]
        assert (outlet.refused, inlet.refused, inlet.torn) == (0, 0, 0)
        assert [path.name for path in folder.path.parent.glob("*echo*")] == []
    finally:
        if worker.is_alive():
            worker.kill()
            worker.join()
        assert worker.exitcode in (0, -signal.SIGKILL)
        outlet.close()
        inlet.close()
        context.destroy(0)


def test_every_field_of_a_stamp_crosses():
    assert {field.name for field in dataclasses.fields(Stamp)} - {"seq"} <= set(messages.Content.__struct_fields__)
