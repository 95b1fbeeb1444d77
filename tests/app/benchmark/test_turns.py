"""Ways that are compared are measured in turns, there and back."""

from warpfuse.benchmark.turns import TURNS, there_and_back


class Machine:
    """Every piece of work takes longer than the one before: by so much each time, and twice as long from `slow` on."""

    def __init__(self, drift, slow):
        self.drift, self.slow, self.done = drift, slow, 0

    def work(self, spent):
        spent.append((1 + self.drift * self.done) * (2 if self.done >= self.slow else 1))
        self.done += 1


def one_after_another(ways):
    """The control: each as often, and with it done."""
    for way in ways:
        for _ in range(TURNS):
            way()


def totals(order, **machine):
    """What four equal ways come to on such a machine."""
    on, spent = Machine(**machine), [[] for _ in range(4)]
    order([lambda times=times: on.work(times) for times in spent])
    assert [len(times) for times in spent] == [TURNS] * 4
    return [round(sum(times), 9) for times in spent]


def test_equal_ways_come_to_the_same_on_a_machine_that_slows_down():
    assert len(set(totals(there_and_back, drift=0.1, slow=99))) == 1, "slower and slower"
    assert len(set(totals(there_and_back, drift=0, slow=4))) == 1, "slow in the second half"


def test_measurements_in_sequence_burden_the_last():
    drifting, halved = (totals(one_after_another, drift=drift, slow=slow) for drift, slow in ((0.1, 99), (0, 4)))
    assert drifting == sorted(set(drifting)) and halved == [2, 2, 4, 4]
