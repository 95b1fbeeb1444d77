"""What is not there: shared memory, and slots that a reader never gives back."""

import numpy as np
import pytest
from support.shared_ends import pump
from support.workers import STAGES, inside

from warpfuse.graph.errors import SharedMemoryFull
from warpfuse.stages.frame import RawFrame, Stamp

FULL = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (48 << 10, 48 << 10))
"""


def test_full_shared_memory_ends_the_run_at_once_and_in_one_line(go, tmp_path, monkeypatch, caplog):
    """By a limit of the system's own. The fixture sees to it that no process, no socket and no memory is left."""
    inside(tmp_path, monkeypatch, FULL)
    with pytest.raises(SharedMemoryFull, match=r"a link needs .* MiB are free .*--shm-size.*--workers one") as full:
        go(
            source="pattern:96x64@25,frames=20",
            sinks=["null:"],
            workers={"near": ["source", *STAGES], "show": ["sink_1"]},
        )
    assert "\n" not in str(full.value)
    assert caplog.text.count("ended the run") == 1, "not tried again: it would be as full"


def picture(seq):
    return RawFrame(Stamp(seq, 0, 0), np.full((4, 4, 3), seq, np.uint8))


def forget(inlet):
    """Take a frame and never give it back."""
    frame = inlet.take()
    inlet._held = None
    return frame


def test_a_slot_that_never_comes_back_costs_its_credit_and_is_never_written_again(connect):
    outlet, inlet = connect(credits=2, mailbox=1, policy="latest")
    outlet.offer(0, picture(0))
    pump(outlet, inlet)
    kept = forget(inlet)
    for seq in range(1, 10):
        outlet.offer(seq, picture(seq))
        pump(outlet, inlet)
        assert inlet.take().rgb.max() == seq
        inlet.done()
    assert (outlet.sent, outlet.dropped) == (10, 0) and kept.rgb.max() == 0
    assert outlet.peak <= outlet.plan.slots


@pytest.mark.parametrize("policy", ["latest", "block"])
def test_without_any_credit_the_newest_waits_and_memory_does_not_grow(connect, folder, policy):
    outlet, inlet = connect(credits=2, mailbox=1, policy=policy)
    for seq in range(2):
        outlet.offer(seq, picture(seq))
        pump(outlet, inlet)
        forget(inlet)
    offered = 2
    while offered < 50 and not outlet.blocked:
        outlet.offer(offered, picture(offered))
        offered += 1
    assert (outlet.sent, offered, outlet.dropped) == ((2, 50, 47) if policy == "latest" else (2, 3, 0))
    assert outlet.store.in_use == 3 and len(list(folder.path.iterdir())) == 2, "the owner's lock, and one table"
    outlet.finish()
    inlet.bye()
    pump(outlet, inlet)
    assert outlet.finished, "a reader that leaves gives back everything"
