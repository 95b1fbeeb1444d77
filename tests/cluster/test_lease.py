"""How long a host may run a stream that nobody confirms: counted by its own clock from a beat of its own."""

from warpfuse.cluster.lease import Leases
from warpfuse.graph.control.messages import Grant


def test_a_lease_runs_from_when_its_beat_was_sent_however_late_the_grant_comes():
    leases = Leases(first=7)
    beat = leases.beat(100.0)
    assert beat == 7 and leases.take("yard", Grant(1, beat, 6.0), 104.0)
    assert leases.over(105.9) == [] and leases.over(106.0) == ["yard"]
    assert not leases.take("door", Grant(1, beat, 6.0), 106.0), "it was over when it came"


def test_an_older_grant_does_not_shorten_a_lease_and_one_for_another_life_does_not_lengthen_it():
    leases = Leases()
    early, late = leases.beat(0.0), leases.beat(5.0)
    assert leases.take("yard", Grant(2, late, 6.0), 5.0) and leases.take("yard", Grant(2, early, 6.0), 5.0)
    assert leases.over(10.9) == []
    leases.renew({"yard": Grant(3, leases.beat(9.0), 6.0)}, 9.0)
    assert leases.over(11.0) == ["yard"]


def test_a_life_that_has_ended_is_not_begun_again_by_an_order_that_comes_twice():
    leases = Leases()
    grant = Grant(4, leases.beat(0.0), 6.0)
    assert leases.take("yard", grant, 0.0)
    leases.drop("yard")
    assert not leases.take("yard", grant, 0.0) and not leases.take("yard", Grant(3, 1, 6.0), 0.0)
    assert leases.take("yard", Grant(5, 1, 6.0), 0.0)


def test_a_refused_order_is_refused_for_good():
    leases = Leases()
    grant = Grant(1, leases.beat(0.0), 6.0)
    assert leases.take("yard", grant, 0.0)
    leases.drop("yard")  # what could not be started
    assert leases.over(100.0) == [] and not leases.take("yard", grant, 1.0)


def test_a_beat_of_another_life_of_the_host_grants_nothing():
    before, now = Leases(first=1_000), Leases(first=9_000)
    assert not now.take("yard", Grant(1, before.beat(0.0), 6.0), 0.0)
