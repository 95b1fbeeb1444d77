"""Damaged messages at live ends: none ends them, none is obeyed, each is counted."""

import random

import pytest
import torch
import zmq
from support.mutations import mutated
from support.shared_ends import pump

from warpfuse.graph.errors import LinkCut
from warpfuse.graph.links import messages
from warpfuse.graph.links.link_plan import LinkPlan
from warpfuse.graph.links.sockets import identity
from warpfuse.graph.links.transports import open_inlet, open_outlet
from warpfuse.stages.frame import Latent, Stamp

_ROUNDS, _MESSAGES = 25, 40
_LONGEST = 2 * messages.MAX_BODY  # of a part; what is longer ends the connection


class Peer:
    """A socket that says what it likes, where a reader or a sender is expected."""

    def __init__(self, context, kind, endpoint, epoch):
        self.socket = context.socket(kind)
        self.epoch = epoch
        self.prefix = [] if kind == zmq.DEALER else [identity(epoch)]
        if kind == zmq.DEALER:
            self.socket.setsockopt(zmq.ROUTING_ID, identity(epoch))
            self.socket.setsockopt(zmq.PROBE_ROUTER, 1)
            self.socket.connect(f"{endpoint}.{epoch}")
        else:
            self.socket.bind(f"{endpoint}.{epoch}")

    def send(self, parts):
        self.socket.send_multipart([*self.prefix, *parts])

    def say(self, message):
        self.send(messages.encode(message, self.epoch))


def _damaged(rng, whole):
    while True:
        parts = mutated(rng, rng.choice(whole))
        # Without parts there is no message; one empty part announces a connection.
        if parts and parts != [b""] and all(len(part) <= _LONGEST for part in parts):
            return parts


def _receive(end, count, poller):
    """Let an end handle `count` messages; those obeyed, and whether it found itself cut by an EOS that was wrong."""
    obeyed, cut, handle, seen = [], 0, end._handle, end.refused + end.stale

    def watched(message, *planes):
        handle(message, *planes)
        if message is not None:
            obeyed.append(message)

    end._handle = watched
    while end.refused + end.stale - seen + len(obeyed) + cut < count:
        assert poller.poll(10_000), "a message was neither obeyed nor counted"
        try:
            end.receive()
        except LinkCut:
            cut += 1
    end._handle = handle
    return obeyed, cut


def _poller(end):
    poller = zmq.Poller()
    poller.register(end.socket, zmq.POLLIN)
    return poller


def test_a_sender_survives_what_a_reader_may_say(tmp_path, folder):
    rng, context = random.Random(7), zmq.Context()
    plan = LinkPlan("a->b.frame", "a", "b", "frame", mailbox=2, transport="shm", endpoint=f"ipc://{tmp_path}/a")
    refused = 0
    for epoch in range(2, 2 + _ROUNDS):
        outlet = open_outlet(context, plan, epoch, folder=folder)
        peer = Peer(context, zmq.DEALER, plan.endpoint, epoch)
        peer.say(messages.Hello(plan.name, plan.credits, "shm"))
        _receive(outlet, 1, _poller(outlet))
        for seq in range(4):
            outlet.offer(seq, Latent(Stamp(seq, 0), torch.zeros(4)))
        lent = dict(outlet._lent)
        says = [messages.Credit(1, slot, m.generation, table) for (table, slot), m in lent.items()]
        says += [
            messages.Hello(plan.name, 2, "shm"),
            messages.Bye(None),
            messages.Eos(3),
            messages.FrameMessage(1, 0, 1),
        ]
        for _ in range(_MESSAGES):
            peer.send(_damaged(rng, [messages.encode(message, epoch) for message in says]))
        obeyed, cut = _receive(outlet, _MESSAGES, _poller(outlet))
        assert cut == 0
        for message in obeyed:
            assert isinstance(message, messages.Bye) or (
                isinstance(message, messages.Credit) and message.generation >= 1 and message.slot < plan.slots
            )
        assert outlet.closed == any(isinstance(message, messages.Bye) for message in obeyed)
        assert outlet.store.in_use == 4 - sum(isinstance(message, messages.Credit) for message in obeyed)
        refused += outlet.refused
        peer.socket.close(0)
        outlet.close()
    context.destroy(0)
    assert refused > _ROUNDS * _MESSAGES / 2


def test_a_reader_survives_what_a_sender_may_say(tmp_path, folder):
    rng, context = random.Random(8), zmq.Context()
    real = LinkPlan("a->b.frame", "a", "b", "frame", mailbox=2, transport="shm", endpoint=f"ipc://{tmp_path}/real")
    plan = LinkPlan("a->b.frame", "a", "b", "frame", mailbox=2, transport="shm", endpoint=f"ipc://{tmp_path}/b")
    outlet = open_outlet(context, real, 1, folder=folder)  # never read: where the memory and the messages come from
    said = [outlet._store.fill(seq, Latent(Stamp(seq, 0), torch.full((4,), float(seq)))) for seq in range(4)]
    welcome = outlet.store.agreed
    refused = taken = 0
    for epoch in range(2, 2 + _ROUNDS):
        peer = Peer(context, zmq.ROUTER, plan.endpoint, epoch)
        inlet = open_inlet(context, plan, epoch)
        assert peer.socket.poll(10_000)
        says = [welcome, *(parcel.message for parcel in said), messages.Eos(2), messages.Error("flow")]
        peer.say(welcome)
        _receive(inlet, 1, _poller(inlet))
        for _ in range(_MESSAGES):
            peer.send(_damaged(rng, [messages.encode(message, epoch) for message in says]))
        obeyed, _ = _receive(inlet, _MESSAGES, _poller(inlet))
        while inlet.ready:
            value = inlet.take()
            assert all(tensor.numel() <= welcome.slot_bytes for tensor in value.tensors.values())
            inlet.done()
            taken += 1
        assert sum(isinstance(message, messages.FrameMessage) for message in obeyed) == inlet.received
        refused += inlet.refused
        peer.socket.close(0)
        inlet.close()
    outlet.close()
    context.destroy(0)
    assert refused > _ROUNDS * _MESSAGES / 2
    assert taken > 0


@pytest.mark.parametrize(
    "frame, reason",
    [
        ({"slot": 4}, "slot 4 of a table of 4"),
        ({"generation": 2}, "holds generation 1, not 2"),
        ({"table": 2}, "table 2 was never agreed"),
        ({"content": None}, "without a description"),
    ],
)
def test_a_frame_outside_of_what_was_agreed_is_not_touched(tmp_path, folder, frame, reason):
    context = zmq.Context()
    plan = LinkPlan("a->b.frame", "a", "b", "frame", transport="shm", endpoint=f"ipc://{tmp_path}/c")
    inlet = open_inlet(context, plan, 1)
    outlet = open_outlet(context, plan, 1, folder=folder)
    pump(outlet, inlet)
    fill = outlet.store.fill

    def lying(seq, value, sent_ns):
        parcel = fill(seq, value, sent_ns)
        fields = {name: getattr(parcel.message, name) for name in parcel.message.__struct_fields__}
        return type(parcel)(messages.FrameMessage(**{**fields, **frame}))

    outlet.store.fill = lying
    outlet.offer(0, Latent(Stamp(0, 0), torch.zeros(4)))
    pump(outlet, inlet)
    assert (inlet.ready, inlet.refused, inlet.received) == (False, 1, 0)
    assert reason in inlet.complaint
    outlet.close()
    inlet.close()
    context.destroy(0)


def test_a_connection_that_is_made_a_second_time_is_a_cut_link(tmp_path, folder):
    context = zmq.Context()
    plan = LinkPlan("a->b.frame", "a", "b", "frame", transport="shm", endpoint=f"ipc://{tmp_path}/d")
    outlet = open_outlet(context, plan, 1, folder=folder)
    for number in range(2):
        peer = Peer(context, zmq.DEALER, plan.endpoint, 1)
        assert outlet.socket.poll(10_000)
        if number == 0:
            outlet.receive()
            assert not outlet.closed
        else:
            with pytest.raises(LinkCut, match="in flight are lost"):
                outlet.receive()
        peer.socket.close(0)
    outlet.close()
    context.destroy(0)
