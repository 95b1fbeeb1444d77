"""How often and how soon a worker is started again, by numbers alone."""

from warpfuse.graph.processes.restart_policy import RestartPolicy


def test_five_within_a_minute_with_growing_pauses_then_no_more():
    restarts = RestartPolicy()
    assert [restarts.after(t) for t in (0, 1, 2, 3, 4)] == [0.5, 1, 2, 4, 8]
    assert restarts.after(5) is None and restarts.total == 5


def test_what_was_long_ago_is_forgotten():
    restarts = RestartPolicy()
    assert [restarts.after(t) for t in range(0, 1000, 61)] == [0.5] * 17
