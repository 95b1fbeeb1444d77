"""Slots are lent with a generation; a mailbox is bounded and says what it dropped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpfuse.graph.errors import WireError
from warpfuse.graph.links import messages
from warpfuse.graph.links.link_plan import slots_needed
from warpfuse.graph.links.slots import Mailbox, Parcel, SlotTable


def test_a_value_is_found_under_its_slot_and_generation():
    table = SlotTable(2)
    message, planes = table.fill(0, "picture")
    table.admit(message, planes)
    assert table.open(message, planes) == "picture"


def test_a_released_slot_forgets_its_value():
    table = SlotTable(1)
    message, planes = table.fill(0, "first")
    table.free(message)
    table.put("second")
    with pytest.raises(WireError, match="generation"):
        table.admit(message, planes)


@pytest.mark.parametrize("slot, generation", [(-1, 1), (5, 1), (0, 2), (0, 0)])
def test_what_is_not_lent_is_refused(slot, generation):
    table = SlotTable(2)
    table.put("picture")
    with pytest.raises(WireError):
        table.free(messages.FrameMessage(0, slot, generation))
    assert table.in_use == 1


def test_a_slot_is_released_once():
    table = SlotTable(2)
    message, _ = table.fill(0, "picture")
    table.free(message)
    with pytest.raises(WireError, match="twice"):
        table.free(message)


def test_there_is_no_slot_beyond_the_last():
    table = SlotTable(1)
    table.put("picture")
    with pytest.raises(IndexError):
        table.put("one too many")


@given(mailbox=st.integers(1, 4), credits=st.integers(1, 4), data=st.data())
def test_a_free_slot_exists_whenever_one_is_asked_for(mailbox, credits, data):
    """The law behind `slots_needed`: writing one, `mailbox` waiting, `credits` lent, in any order of events."""
    table, box = SlotTable(slots_needed(mailbox, credits)), Mailbox(mailbox)
    lent, seq = [], 0
    for _ in range(40):
        if lent and data.draw(st.booleans()):
            table.free(lent.pop(0))
        else:
            dropped = box.push(table.fill(seq, seq))
            seq += 1
            if dropped:
                table.free(dropped.message)
        while len(box) and len(lent) < credits:
            lent.append(box.popleft().message)
        assert table.in_use == len(box) + len(lent) < len(table)


def _waiting(seq):
    return Parcel(messages.FrameMessage(seq, seq, 1))


def test_dropping_keeps_the_newest_and_counts():
    box = Mailbox(1)
    dropped = [box.push(_waiting(seq)) for seq in range(4)]
    assert [item.message.seq for item in dropped if item] == [0, 1, 2]
    assert (box.popleft().message.seq, box.dropped) == (3, 3)
