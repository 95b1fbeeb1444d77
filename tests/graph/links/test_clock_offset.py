"""The clock of another host."""

from hypothesis import given
from hypothesis import strategies as st

from warpfuse.graph.links.clock_offset import Trip, offset

NS = st.integers(0, 10**9)


def trip(there_ahead, sent, way_out, work, way_back):
    came = sent + way_out
    return Trip(sent, came + there_ahead, came + there_ahead + work, came + work + way_back)


@given(st.integers(-(10**15), 10**15), st.lists(st.tuples(NS, NS, NS, NS), min_size=1, max_size=20))
def test_the_error_is_never_more_than_is_told(there_ahead, trips):
    to_add, error = offset([trip(there_ahead, *times) for times in trips])
    assert abs(to_add + there_ahead) <= error


@given(st.integers(-(10**15), 10**15), NS, NS, NS)
def test_with_equal_ways_the_clock_is_exact_and_work_there_does_not_matter(there_ahead, sent, way, work):
    assert offset([trip(there_ahead, sent, way, work, way)])[0] == -there_ahead


def test_the_quickest_trip_counts():
    slow = [trip(500, sent, 10_000, 0, 0) for sent in range(5)]
    assert offset([*slow, trip(500, 9, 10, 0, 12)]) == (-499, 11)
