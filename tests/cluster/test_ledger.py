"""Frames of a stream over several lives: nothing is counted twice, and what nobody counted is marked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpfuse.cluster.ledger import Ledger
from warpfuse.graph.control.messages import StreamCounts


def counts(into, dropped=0, repeated=0, under_way=0):
    return StreamCounts(into, into + repeated - dropped - under_way, repeated, dropped, under_way, (96, 64))


def test_lives_add_up():
    ledger = Ledger()
    for into in (10, 20):
        ledger.begin("yard", 0.0)
        ledger.hear("yard", counts(into, dropped=2, repeated=1), 1.0, rate=10)
        ledger.end("yard", lost=False)
    books = ledger.books("yard")
    assert (books.into, books.out, books.dropped, books.repeated, books.reckoned, books.lives) == (30, 28, 4, 2, 0, 2)


def test_a_lost_life_costs_what_was_under_way_and_what_the_source_gave_until_the_next():
    ledger = Ledger()
    ledger.begin("yard", 0.0)
    ledger.hear("yard", counts(50, under_way=3), 5.0, rate=10)
    ledger.end("yard", lost=True)
    assert (ledger.books("yard").reckoned, ledger.books("yard").under_way) == (3, 0)
    ledger.begin("yard", 9.0)
    ledger.hear("yard", counts(0), 9.0, rate=10)
    ledger.hear("yard", counts(5), 12.0, rate=10)
    books = ledger.books("yard")
    assert books.balanced and books.reckoned == 3 + 70 and books.into == 50 + 70 + 5


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 5), st.booleans(), st.floats(0, 50))))
def test_books_balance_at_every_moment(lives):
    ledger, now = Ledger(), 0.0
    for into, under_way, lost, gap in lives:
        now += gap
        ledger.begin("yard", now)
        assert ledger.books("yard").balanced
        ledger.hear("yard", counts(into + under_way, under_way=under_way), now, rate=12.5)
        assert ledger.books("yard").balanced
        ledger.end("yard", lost=lost)
        assert ledger.books("yard").balanced and ledger.books("yard").under_way == 0


def test_a_stream_has_one_life_at_a_time():
    ledger = Ledger()
    ledger.begin("yard", 0.0)
    with pytest.raises(AssertionError):
        ledger.begin("yard", 1.0)
