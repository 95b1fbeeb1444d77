"""What a controller does about hosts that die, freeze, are cut off and come back, over a wire that loses messages.

At every moment (`World.check`): no stream twice beyond its lease, a unique one never; the books balance.
"""

import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.cluster_hosts import LEASE_S, STEP_S, FakeHost, World, config_of, hosts_of

from warpfuse.cluster.lease import PACE_S
from warpfuse.cluster.packing import Host
from warpfuse.graph.errors import ConfigError

KINDS = st.sampled_from(["kill", "freeze", "cut", "heal", "boot", "restart"])
EVENTS = st.lists(st.tuples(st.integers(0, 20), KINDS, st.integers(0, 5)), max_size=12)


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(EVENTS, st.randoms(use_true_random=False), st.sampled_from([0.0, 0.1, 0.4]))
def test_no_stream_is_lost_or_doubled_whatever_happens(events, chance, loss):
    world = World(config_of(12), hosts_of(6), loss=lambda: chance.random() < loss, again=lambda: chance.random() < loss)
    world.run(5)
    for wait, kind, host in events:
        world.run(wait * STEP_S)
        world.happen(kind, host)
    world.settle()
    for name in world.controller.config.streams:
        assert len(world.running(name)) == 1, (name, world.controller.troubles)
        assert world.controller.ledger.books(name).into > 0


def test_a_thousand_streams_on_128_cards_outlive_nodes_that_die_freeze_and_are_cut_off():
    world = World(config_of(1000, reserve=2, megapixel_ms=20.0), hosts_of(16, cards=8))
    world.run(3)
    assert len(world.controller.placed) == 1000
    for card in range(8):
        world.happen("kill", card)
        world.happen("freeze" if card % 2 else "cut", 8 + card)
    world.run(12)
    for card in range(8):
        world.happen("heal", 8 + card)
    world.restart_controller()
    world.run(9)
    assert all(len(world.running(name)) == 1 for name in world.controller.config.streams)
    untouched = [name for name, number in world.generations().items() if number == 1]
    assert len(untouched) >= 1000 - 2 * 8 * 8, "who had a sound host stayed there"


def test_a_host_that_keeps_a_stream_beyond_its_lease_would_be_seen(monkeypatch):
    """The control of the laws of every moment."""
    monkeypatch.setattr(FakeHost, "step", lambda self, now_s: None)
    world = World(config_of(4), hosts_of(3))
    world.run(5)
    world.hosts[world.controller.placed["s0"]].state = "cut"
    with pytest.raises(AssertionError, match="s0 runs twice"):
        world.run(3 * LEASE_S)


@pytest.mark.parametrize("how", ["kill", "freeze", "cut"])
def test_streams_of_a_lost_host_run_elsewhere_when_its_lease_is_over_and_no_other_moves(how):
    world = World(config_of(6), hosts_of(3))
    world.run(5)
    before = world.controller.placed
    gone = [name for name, host in before.items() if host == "n0:0"]
    world.happen(how, 0)
    world.run(LEASE_S + PACE_S + 4)
    after = world.controller.placed
    assert gone and {after[name] for name in gone} <= {"n1:0", "n2:0"}
    assert all(set(world.running(name)) - {"n0:0"} for name in gone)
    assert all(after[name] == before[name] for name in before if name not in gone)
    for name in before:
        books = world.controller.ledger.books(name)
        assert (books.lives, books.reckoned > 0) == ((2, True) if name in gone else (1, False))


def test_a_restart_of_the_controller_touches_no_stream():
    world = World(config_of(9), hosts_of(4))
    world.run(10)
    before, ran = world.generations(), {name: world.running(name) for name in world.controller.config.streams}
    world.restart_controller()
    for _ in range(40):
        world.step()
        assert world.actions == []
    assert world.generations() == before and {name: world.running(name) for name in ran} == ran


def test_a_controller_that_kept_nothing_takes_over_what_runs():
    world = World(config_of(9), hosts_of(4))
    world.run(10)
    ran, world.kept = {name: world.running(name) for name in world.controller.config.streams}, {}
    world.restart_controller()
    world.run(20)
    assert {name: world.running(name) for name in ran} == ran


def test_a_node_that_joins_gets_streams_and_none_moves_twice_in_ten_minutes():
    world = World(config_of(12), hosts_of(4))
    for number in (2, 3):
        world.happen("kill", number)
    world.run(30)
    moved = {}
    world.happen("boot", 2)
    for _ in range(1100):
        before = world.controller.placed
        world.step()
        for name, host in world.controller.placed.items():
            if before.get(name, host) != host:
                moved.setdefault(name, []).append(world.now_s)
    assert sum(host == "n2:0" for host in world.controller.placed.values()) >= 3
    assert all(len(times) <= 1 for times in moved.values()) and world.controller.moves <= 4


def test_a_drained_host_is_left_by_all_in_order_and_taken_by_none():
    world = World(config_of(8), hosts_of(4))
    world.run(5)
    own = world.hosts["n1:0"]
    assert own.streams
    own.host = dataclasses.replace(own.host, draining=True)
    world.run(10)
    assert not own.streams and len(world.controller.placed) == 8 and "n1:0" not in world.controller.placed.values()
    assert all(world.controller.ledger.books(name).reckoned == 0 for name in world.controller.config.streams)


def test_a_stream_goes_where_somebody_says():
    world = World(config_of(2), hosts_of(3))
    world.run(5)
    free = next(name for name in world.hosts if name not in world.controller.placed.values())
    world.controller.move("s0", free)
    world.run(3)
    assert world.running("s0") == [free]
    with pytest.raises(ConfigError, match="there is no host 'n7:0'; known: n0:0, n1:0, n2:0"):
        world.controller.move("s0", "n7:0")
    with pytest.raises(ConfigError, match="stream 'x' runs nowhere"):
        world.controller.move("x", free)


def test_streams_that_are_added_changed_and_taken_away_leave_the_others_alone():
    world = World(config_of(4), hosts_of(3))
    world.run(5)
    was, more = world.controller.config.streams, config_of(5, prompt="noir")
    wanted = {"s1": was["s1"], "s2": was["s2"], "s3": more.streams["s3"], "s4": more.streams["s4"]}
    where = world.running("s3")
    world.controller.config = dataclasses.replace(more, streams=wanted)
    world.run(5)
    assert world.running("s0") == [] and "s0" not in world.controller.placed
    numbers = world.generations()
    assert (numbers["s1"], numbers["s2"], numbers["s3"]) == (1, 1, 2) and len(world.running("s4")) == 1
    assert world.running("s3") == where, "changed in its place"


def test_a_stream_whose_source_has_ended_is_done_and_one_that_fails_is_tried_again():
    world = World(config_of(2), hosts_of(2))
    world.run(5)
    for name, error in (("s0", None), ("s1", "stream s1: the disk is full")):
        own = world.hosts[world.controller.placed[name]].streams[name]
        own.ended_s, own.error = world.now_s, error
    world.run(1)
    world.restart_controller()
    world.run(30)
    assert world.running("s0") == [] and len(world.running("s1")) == 1
    assert (world.generations()["s0"], world.generations()["s1"]) == (1, 2)


def test_a_source_that_is_not_there_is_asked_for_ever_more_seldom():
    world = World(config_of(1), hosts_of(2))
    world.broken.add("s0")
    world.run(300)
    assert 5 <= world.generations()["s0"] <= 12 and world.controller.troubles == {"s0": "the source is not there"}
    world.broken.clear()
    world.run(90)
    assert len(world.running("s0")) == 1 and world.controller.troubles == {}


def test_a_host_of_another_kind_gets_nothing():
    world = World(config_of(1), [Host("a:0", "a", "H200")])
    world.run(5)
    assert world.controller.placed == {} and "there are: H200" in world.controller.troubles["s0"]
