"""Memory that two processes share on a card, by CUDA IPC: both ends here, on a simulated card."""

import gc

import pytest
import torch
from support.card import card
from support.card.cuda import Status

from warpfuse.engine.cuda_streams import new_stream, on
from warpfuse.graph.errors import WireError
from warpfuse.graph.links import cuda_ipc, messages
from warpfuse.stages.frame import Latent, Stamp

CARD = "cuda:0"
OLD_DRIVER = Status(35, "cudaErrorInsufficientDriver")


class Link:
    """A sender's slots and its reader's, without the messages between them."""

    def __init__(self, name="a->b.x", slots=1, device=CARD):
        self.store = cuda_ipc.slots_on_card(name, slots, device)
        self.access = cuda_ipc.access_on_card(slots, device)
        self.told = None

    def send(self, n):
        """A frame to the reader; what the message says of it."""
        z = torch.full((1, 4, 2, 2), float(n), device=CARD)
        message = self.store.fill(n, Latent(Stamp(n, 0), z)).message
        if self.store.agreed is not self.told:
            self.told = self.store.agreed
            self.access.agree(self.told)
        self.access.admit(message, ())
        return message

    def read(self, message):
        value = float(self.access.open(message, ()).z.sum())
        self.access.done(message)
        self.store.free(message)
        return value


@pytest.mark.parametrize("device", ["cuda:0", "cuda"])
def test_frames_cross(device):
    with card() as sim, on(new_stream(CARD)):
        link = Link(device=device)
        assert [link.read(link.send(n)) for n in range(4)] == [0.0, 16.0, 32.0, 48.0]
        link.access.close(), link.store.close()
    assert not sim.races


def test_a_driver_too_old_for_the_bindings_is_a_reason_and_no_error():
    with card() as sim:
        assert cuda_ipc.missing(CARD) is None, "control: the card has it"
        sim.runtime.failing["cudaDeviceGetAttribute"] = OLD_DRIVER
        assert "cudaErrorInsufficientDriver" in cuda_ipc.missing(CARD)


def test_pools_of_two_links_lie_in_blocks_of_their_own():
    with card() as sim, on(new_stream(CARD)):
        links = [Link(name) for name in ("a->b.x", "b->a.past")]
        assert [link.read(link.send(1)) for link in links] == [16.0, 16.0]
        small = [sim.runtime.cudaMalloc(4096)[1] for _ in range(2)]
        handles = [sim.runtime.cudaIpcGetMemHandle(address)[1] for address in small]
        status = [int(sim.runtime.cudaIpcOpenMemHandle(handle, 1)[0]) for handle in handles]
        assert status == [0, 208], "control: two small ones share a block, which is opened once"
        for link in links:
            link.access.close(), link.store.close()


def test_what_the_owner_closed_stays_until_the_reader_has_let_go_and_no_frame_waits_for_it():
    with card() as sim, on(new_stream(CARD)):
        before = Link()
        late = before.send(1)
        before.store.close()  # the owner's epoch is over, its reader is at work
        gc.collect()
        after = Link()
        assert float(before.access.open(late, ()).z.sum()) == 16.0
        before.access.done(late)
        before.access.close()
        for n in range(4):
            assert after.read(after.send(n)) == 16.0 * n
        assert sim.freed == 0, "cudaFree waits for the whole card: not while frames flow"
        after.access.close(), after.store.close()
        assert sim.freed == 1, "the first pool; the second may still be read"
    assert not sim.races


def test_handles_of_nothing_are_refused_in_one_line():
    with card():
        with pytest.raises(WireError, match=r"0 CUDA handles for 1 slots, expected 3 of 64 bytes"):
            cuda_ipc.access_on_card(1, CARD).agree(messages.Welcome(1, 1, 4096))
        access = cuda_ipc.access_on_card(1, CARD)
        with pytest.raises(WireError, match="cannot be opened: CUDA: cudaErrorInvalidResourceHandle"):
            access.agree(messages.Welcome(1, 1, 4096, handles=(bytes(64),) * 3))
