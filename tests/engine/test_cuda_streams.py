"""Hand-over between streams: nothing to do on a CPU; on a card a late reader must see its own frame."""

import pytest
import torch
from support.card import card

from warpfuse.engine.cuda_streams import (
    DeviceClock,
    DownloadRing,
    NoStream,
    ToDevice,
    ToHost,
    UploadRing,
    current_stream,
    new_stream,
    on,
    reads,
    wrote,
)


def test_on_a_cpu_the_same_calls_do_nothing():
    stream = new_stream("cpu")
    assert isinstance(stream, NoStream) and isinstance(current_stream("cpu"), NoStream)
    x = torch.arange(4.0)
    with on(stream):
        event = wrote(x.device)
        reads((x,), event, stream)
    assert event is None and torch.equal(x, torch.arange(4.0))


def test_on_leaves_the_block_by_an_exception():
    with pytest.raises(KeyError, match="inside"), on(new_stream("cpu")):
        raise KeyError("inside")


def test_what_was_uploaded_is_not_the_callers_memory_any_more():
    ring = UploadRing((2, 3), torch.uint8, "cpu")
    picture = torch.full((2, 3), 7, dtype=torch.uint8)
    first = ring.upload(picture)
    picture.fill_(9)
    assert torch.equal(first, torch.full((2, 3), 7, dtype=torch.uint8))
    for n in range(4):
        ring.upload(torch.full((2, 3), n, dtype=torch.uint8))
    assert torch.equal(first, torch.full((2, 3), 7, dtype=torch.uint8)), "nor the ring's"


def test_a_download_lands_in_its_own_slot():
    ring = DownloadRing((3,), torch.float32, "cpu")
    x = torch.tensor([1.0, 2.0, 3.0])
    first = ring.download(x)
    second = ring.download(2 * x)
    x.zero_()
    assert first.wait().tolist() == [1, 2, 3] and second.wait().tolist() == [2, 4, 6]
    ring.download(x)
    assert first.wait().tolist() == [0, 0, 0], "control: the third takes the first slot again"


@pytest.mark.parametrize("ring", [UploadRing, DownloadRing])
def test_another_shape_does_not_fit(ring):
    ring = ring((2, 2), torch.float32, "cpu")
    with pytest.raises(RuntimeError):
        (ring.upload if isinstance(ring, UploadRing) else ring.download)(torch.zeros(3, 3))


def test_on_a_cpu_both_ways_are_the_tensor_itself():
    x = torch.arange(6, dtype=torch.uint8).view(2, 3)
    assert ToDevice("cpu")(x) is x
    assert ToHost("cpu")(x).ctypes.data == x.data_ptr()
    assert all(got is x for got in ToDevice("cpu").together([x, x]))


def test_several_tensors_go_up_by_one_copy():
    parts = [torch.arange(12.0).view(1, 2, 2, 3), torch.arange(7.0), torch.tensor([[5.0]])]
    with card() as sim:
        got = ToDevice("cuda:0").together(parts)
        assert sim.kernels == {("", "pinned to device"): 1} and all(x.is_cuda for x in got)
        assert all(torch.equal(x.cpu(), part) and x.shape == part.shape for x, part in zip(got, parts, strict=True))


def slow(cycles=50_000_000):
    torch.cuda._sleep(cycles)


def torn_by_reuse(guarded):
    """Frames that a slow reader on its own stream saw changed, of 20: each is dropped as soon as it is handed over."""
    device = torch.device("cuda:0")
    producer, reader = torch.cuda.Stream(device), torch.cuda.Stream(device)
    torn = torch.zeros((), dtype=torch.int64, device=device)
    torch.cuda.synchronize()
    for n in range(20):
        with on(producer):
            x = torch.full((1 << 20,), float(n), device=device)
            if guarded:
                reads((x,), wrote(x.device), reader)
            else:
                reader.wait_event(producer.record_event())  # written before it is read, but not kept until then
        with on(reader):
            slow()
            torn += (x != n).any()
        del x
        with on(producer):
            torch.full((1 << 20,), -1.0, device=device)  # somebody else takes what the allocator holds for free
    torch.cuda.synchronize()
    return int(torn)


@pytest.mark.gpu
@pytest.mark.parametrize("guarded", [True, False])
def test_a_late_reader_sees_its_own_frame(cuda, guarded):
    torn = torn_by_reuse(guarded)
    assert (torn == 0) if guarded else (torn > 0)  # False guards the test itself


@pytest.mark.gpu
@pytest.mark.parametrize("guarded", [True, False])
def test_a_reader_waits_for_its_producer(cuda, guarded):
    producer, reader = new_stream("cuda:0"), new_stream("cuda:0")
    x = torch.zeros(1 << 20, device="cuda:0")
    torch.cuda.synchronize()
    with on(producer):
        slow()
        x.fill_(1.0)
        if guarded:
            reads((x,), wrote(x.device), reader)
    with on(reader):
        seen = x.clone()
    torch.cuda.synchronize()
    assert (seen.min() == 1) if guarded else (seen.min() == 0)


@pytest.mark.gpu
def test_rings_carry_pictures_both_ways(cuda):
    up = UploadRing((64, 64, 3), torch.uint8, "cuda:0")
    down = DownloadRing((64, 64, 3), torch.uint8, "cuda:0")
    for n in range(8):
        picture = torch.full((64, 64, 3), n, dtype=torch.uint8)
        assert torch.equal(down.download(up.upload(picture)).wait(), picture)


@pytest.mark.gpu
def test_what_went_onto_a_card_and_back_is_the_callers(cuda):
    to_device, to_host = ToDevice("cuda:0"), ToHost("cuda:0")
    pictures = [torch.full((64, n + 1, 3), n, dtype=torch.uint8) for n in (0, 0, 0, 1, 0)]  # another shape between
    there = [to_device(picture) for picture in pictures]
    back = [to_host(x) for x in there]
    for picture, x, y in zip(pictures, there, back, strict=True):
        assert torch.equal(x.cpu(), picture) and (y == picture.numpy()).all()


@pytest.mark.gpu
def test_time_on_a_card_is_the_cards_and_nobody_waits_for_it(cuda):
    clock = DeviceClock(current_stream(cuda))
    clock.begin()
    slow()
    clock.end()
    assert list(clock.over()) == [], "asked at once: it is not over"
    torch.cuda.synchronize()
    (duration_ns,) = clock.over()
    assert duration_ns > 1_000_000 and list(clock.over()) == [], "told once"
