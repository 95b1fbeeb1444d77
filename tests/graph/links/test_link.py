"""Over real sockets: nothing is sent without a credit, nothing is lost, and an end is an end."""

import pytest
import zmq
from support.waiting import until

from warpfuse.graph.errors import LinkCut
from warpfuse.graph.links import messages
from warpfuse.graph.links.link import Inlet, Outlet
from warpfuse.graph.links.link_plan import LinkPlan
from warpfuse.graph.links.slots import SlotTable


@pytest.fixture
def connect():
    context, ends = zmq.Context(), []

    def opened(**options):
        plan = LinkPlan("a->b.frame", "a", "b", "frame", **options)
        table = SlotTable(plan.slots)
        ends.extend((Outlet(context, plan, table, 1), Inlet(context, plan, table, 1)))
        return ends

    yield opened
    for end in ends:
        end.close()
    context.term()


def pump(outlet, inlet):
    """Let both ends handle what has arrived, until nothing moves. inproc delivers at once: no clock is needed."""
    for _ in range(4):
        outlet.receive()
        inlet.receive()


def test_frames_arrive_in_order_and_whole(connect):
    outlet, inlet = connect()
    got = []
    for seq in range(10):
        outlet.offer(seq, f"picture {seq}")
        pump(outlet, inlet)
        got.append(inlet.take())
        inlet.done()
        pump(outlet, inlet)
    assert got == [f"picture {seq}" for seq in range(10)]


@pytest.mark.parametrize("credits", [1, 2, 3])
def test_no_more_is_sent_than_was_granted(connect, credits):
    outlet, inlet = connect(credits=credits, mailbox=5)
    for seq in range(5):
        outlet.offer(seq, seq)
    pump(outlet, inlet)
    assert (outlet.sent, inlet.received) == (credits, credits)


def test_a_credit_comes_back_with_the_slot_and_lets_the_next_one_go(connect):
    outlet, inlet = connect(credits=1, mailbox=1)
    outlet.offer(0, "a")
    outlet.receive()
    outlet.offer(1, "b")
    pump(outlet, inlet)
    assert outlet.blocked
    inlet.take()
    pump(outlet, inlet)
    assert outlet.blocked, "taking is not returning"
    inlet.done()
    pump(outlet, inlet)
    assert not outlet.blocked
    assert inlet.take() == "b"


@pytest.mark.parametrize("policy", ["latest", "drop_oldest"])
def test_a_slow_reader_of_a_link_that_never_blocks_gets_the_newest(connect, policy):
    outlet, inlet = connect(policy=policy, credits=1)
    outlet.receive()
    for seq in range(100):
        assert not outlet.blocked
        outlet.offer(seq, seq)
    pump(outlet, inlet)
    first = inlet.take()
    inlet.done()
    pump(outlet, inlet)
    assert (first, inlet.take(), outlet.dropped) == (0, 99, 98)


def test_a_feedback_link_starts_with_its_delay(connect):
    outlet, inlet = connect(delay=1)
    assert inlet.ready
    assert inlet.take() is None
    inlet.done()
    outlet.offer(0, "picture")
    pump(outlet, inlet)
    assert inlet.take() == "picture"


def test_the_end_comes_after_the_last_frame(connect):
    outlet, inlet = connect(credits=1, mailbox=1)
    outlet.offer(0, "a")
    outlet.receive()
    outlet.offer(1, "b")
    outlet.finish()
    pump(outlet, inlet)
    assert (inlet.ended, outlet.finished) == (False, False)
    assert inlet.take() == "a"
    inlet.done()
    pump(outlet, inlet)
    assert (inlet.ended, outlet.finished, inlet.take()) == (True, True, "b")


def test_a_failure_takes_the_place_of_the_frames_that_wait(connect):
    outlet, inlet = connect(credits=2, mailbox=2)
    outlet.offer(0, "a")
    outlet.finish(failed="predict")
    pump(outlet, inlet)
    assert (inlet.ended, inlet.failed, inlet.ready) == (True, "predict", False)


def test_a_reader_that_left_blocks_nobody(connect):
    outlet, inlet = connect()
    inlet.bye()
    outlet.receive()
    for seq in range(5):
        outlet.offer(seq, seq)
    outlet.finish()
    assert (outlet.closed, outlet.failed, outlet.blocked, outlet.finished, outlet.sent) == (True, None, False, True, 0)


@pytest.mark.timeout(60)
def test_a_sender_that_left_blocks_no_reader(connect):
    """A bypass may end at its sender first, while the thread that reads it returns what it was given."""
    outlet, inlet = connect(credits=2, mailbox=2)
    for seq in range(2):
        outlet.offer(seq, seq)
    pump(outlet, inlet)
    outlet.close()
    until(lambda: not inlet.socket.get(zmq.EVENTS) & zmq.POLLOUT, "nobody is there to send to")
    for seq in range(2):
        assert inlet.take() == seq
        inlet.done()
    inlet.bye()


def test_a_message_in_the_wrong_direction_is_counted_and_not_obeyed(connect):
    outlet, inlet = connect()
    inlet.receive()
    inlet.socket.send_multipart(messages.encode(messages.Eos(0), 1))
    outlet.receive()
    assert (outlet.refused, outlet.closed) == (1, False)
    assert "Eos" in outlet.complaint


def test_frames_that_went_missing_are_noticed_at_the_end(connect):
    outlet, inlet = connect()
    outlet.receive()
    outlet.sent = 3
    outlet.finish()
    with pytest.raises(LinkCut, match="3 frames sent, 0 received"):
        inlet.receive()


def test_a_frame_that_comes_twice_is_refused(connect):
    outlet, inlet = connect()
    outlet.offer(0, "a")
    pump(outlet, inlet)
    outlet._send(messages.FrameMessage(0, 0, 1))
    inlet.receive()
    assert (inlet.received, inlet.refused) == (1, 1)


def test_more_than_was_granted_is_refused(connect):
    outlet, inlet = connect(credits=1, mailbox=3)
    outlet.receive()
    outlet._credits = 3  # a sender that does not count
    for seq in range(3):
        outlet.offer(seq, seq)
    inlet.receive()
    assert (inlet.received, inlet.refused) == (1, 2)


def staleness(connect, credits, ticks=1000, service=5):
    """Frames behind the writer, at each frame a reader takes that is `service` times as slow."""
    outlet, inlet = connect(policy="latest", credits=credits)
    behind = []
    for tick in range(ticks):
        outlet.receive()
        outlet.offer(tick, tick)
        if tick % service == 0:
            inlet.receive()
            if inlet.ready:
                behind.append(tick - inlet.take())
                inlet.done()
    return behind


def test_with_one_credit_a_slow_reader_is_one_service_time_behind(connect):
    behind = staleness(connect, credits=1)
    assert len(behind) > 190
    assert max(behind) <= 5


def test_the_control_without_credits_it_falls_behind_as_long_as_it_runs(connect):
    behind = staleness(connect, credits=2000)  # granted for the whole run, so never asked for
    assert behind[-1] > 750
    assert all(later > earlier for earlier, later in zip(behind[::20], behind[20::20], strict=False))
