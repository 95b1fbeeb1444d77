"""Which stream goes where, what is held in reserve, and what is said of those that find no room."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cluster_hosts import config_of, hosts_of

from warpfuse.cluster.packing import Host, better_place, load_of, place


def test_load_is_rate_times_what_a_frame_costs():
    config = config_of(1, megapixel_ms=40.0, steps=2)
    assert load_of(config.streams["s0"], config.pools["cards"]) == pytest.approx(15 * 40 * 0.262144 * 2 / 1000)


@given(st.integers(0, 40), st.integers(1, 6), st.integers(0, 3), st.floats(20, 200))
def test_no_card_gets_more_than_its_budget_and_each_stream_is_placed_or_refused(count, nodes, reserve, cost):
    config, hosts = config_of(count, megapixel_ms=cost), hosts_of(nodes, cards=2)
    pool, streams = config.pools["cards"], config.streams.values()
    found = place(streams, hosts, config.pools, {}, reserve=reserve)
    assert found.placed.keys() | found.refused.keys() == config.streams.keys()
    assert not found.placed.keys() & found.refused.keys()
    loads = {host.name: 0.0 for host in hosts}
    for name, host in found.placed.items():
        loads[host] += load_of(config.streams[name], pool)
    kept = min(reserve, nodes - 1) * 2 * pool.budget
    assert max(loads.values()) <= pool.budget + 1e-6
    assert sum(loads.values()) <= 2 * nodes * pool.budget - kept + 1e-6
    again = place(streams, hosts, config.pools, found.placed, reserve=reserve)
    assert again.placed == found.placed, "who is there stays"


def test_the_reserve_is_for_streams_that_have_lost_their_host():
    config, hosts = config_of(8), hosts_of(2)
    first = place(config.streams.values(), hosts, config.pools, {}, reserve=1)
    assert len(first.placed) == 5 and "0.80 of it held in reserve" in first.refused["s7"]
    lost = place(config.streams.values(), hosts, config.pools, first.placed, reserve=1, lost=frozenset({"s7"}))
    assert "s7" in lost.placed and "s6" in lost.refused


@pytest.mark.parametrize(
    "keys, hosts, says",
    [
        ({"steps": 9}, hosts_of(2), r"needs 1\.42 of a card of pool cards .L4.; free: n\d:0 0\.80, n\d:0 0\.80\. Add"),
        ({"needs": {"site": "north"}}, [Host("a:0", "a", "L4", {"site": "south"})], r"; known: site=south \(a\)"),
        ({"needs": {"site": "north"}}, hosts_of(1), "label site=north; known: none of that name"),
        ({}, [Host("a:0", "a", "H200")], "pool cards takes cards of kind L4; there are: H200"),
        ({}, [], "there are: no hosts"),
    ],
)  # fmt: skip
def test_a_stream_without_room_is_told_what_it_needs_and_what_is_free(keys, hosts, says):
    config = config_of(1, **keys)
    (why,) = place(config.streams.values(), hosts, config.pools, {}).refused.values()
    assert "\n" not in why and re.search(says, why), why


def test_a_label_keeps_a_stream_where_it_has_to_be():
    config = config_of(4, needs={"site": "north"})
    hosts = [Host("a:0", "a", "L4", {"site": "south"}), Host("b:0", "b", "L4", {"site": "north"})]
    assert set(place(config.streams.values(), hosts, config.pools, {}).placed.values()) == {"b:0"}


def test_a_move_has_to_be_worth_its_gap():
    config, hosts = config_of(4), hosts_of(2)
    even = {"s0": "n0:0", "s1": "n0:0", "s2": "n1:0", "s3": "n1:0"}
    uneven, streams = dict.fromkeys(even, "n0:0"), config.streams.values()
    assert better_place(streams, hosts, config.pools, even, even) is None
    assert better_place(streams, hosts, config.pools, uneven, even)[1] == "n1:0"
    assert better_place(streams, hosts, config.pools, uneven, ()) is None
