"""What every backend does alike, on every device it can run on here: one law, all engines."""

import contextlib

import pytest
import torch
from support.card import card
from support.networks import SHAPE, affine, affine_program

from warpfuse.engine import open_engine
from warpfuse.engine.errors import BackendMissing, EngineError
from warpfuse.engine.open import backend_names, choose_backend, missing

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

NEEDS_CARD = ("tensorrt", "tensorrt-rtx")
PLACES = [pytest.param((name, "cpu"), id=f"{name}-cpu") for name in backend_names() if name not in NEEDS_CARD]
PLACES += [pytest.param((name, "cuda:0"), id=f"{name}-cuda", marks=pytest.mark.gpu) for name in backend_names()]
PLACES += [pytest.param((name, "simulated"), id=f"{name}-simulated") for name in ("onnxruntime", "tensorrt")]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """y = 2 x, in every form a backend opens."""
    path = affine(tmp_path_factory.mktemp("networks") / "affine.onnx")
    affine_program(path.with_suffix(".pt2"))
    return path


@pytest.fixture(params=PLACES)
def place(request):
    backend, device = request.param
    with card() if device == "simulated" else contextlib.nullcontext() as sim:
        place = backend, "cuda:0" if sim else device
        reason = missing(*place)
        if reason is not None:
            pytest.skip(reason)
        yield place
    assert sim is None or not sim.races


@pytest.fixture
def backend(place):
    return place[0]


@pytest.fixture
def device(place):
    return place[1]


@pytest.fixture
def engine(network, backend, device):
    engine = open_engine(network, backend, device, threads=1, shapes={"x": SHAPE})
    yield engine
    engine.close()


def test_it_computes_again_and_again(engine, device):
    for n in range(5):
        x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(n))
        assert torch.equal(engine({"x": x.to(device)})["y"].cpu(), 2 * x)


def test_it_tells_what_it_is_and_the_size_it_is_open_for(engine, backend, device):
    assert (engine.backend, engine.device) == (backend, device)
    assert [(spec.name, spec.dtype, spec.shape) for spec in engine.inputs] == [("x", "float32", SHAPE)]
    assert [(spec.name, spec.dtype, len(spec.shape)) for spec in engine.outputs] == [("y", "float32", 4)]


def test_an_output_lives_until_the_next_but_one_call(engine, device):
    x = torch.ones(SHAPE, device=device)
    first = engine({"x": x})["y"]
    engine({"x": 2 * x})
    assert torch.equal(first, 2 * x), "the second call used the other slot"
    engine({"x": 5 * x})
    assert torch.equal(first, 10 * x), "control: the third call takes the first slot again"


def test_the_input_is_the_callers_and_stays_as_it_is(engine, device):
    x = torch.ones(SHAPE, device=device)
    y = engine({"x": x})["y"]
    assert torch.equal(x, torch.ones(SHAPE, device=device))
    x.zero_()
    assert torch.equal(y, torch.full(SHAPE, 2.0, device=device))


def test_a_view_is_fed_as_what_it_shows(engine, device):
    x = torch.randn(1, 3, 6, 4, device=device).transpose(2, 3)
    assert torch.equal(engine({"x": x})["y"], 2 * x)


@pytest.mark.parametrize(
    "feed, says",
    [
        ({"z": torch.ones(SHAPE)}, "takes x, the graph feeds z"),
        ({}, "takes x, the graph feeds nothing"),
        ({"x": torch.ones(SHAPE), "z": torch.ones(1)}, "takes x, the graph feeds x, z"),
        ({"x": torch.ones(1, 3, 4, 8)}, r"built as float32 \[1, 3, 4, 6\], the graph feeds float32 \[1, 3, 4, 8\]"),
        ({"x": torch.ones(SHAPE, dtype=torch.float16)}, "feeds float16"),
        ({"x": torch.ones(3, 4, 6)}, r"\[3, 4, 6\]"),
        ({"x": torch.ones(SHAPE, device="meta")}, "'x' is on meta, the engine on"),
    ],
)
def test_a_wrong_feed_is_told_with_name_expected_and_got(engine, device, feed, says):
    feed = {name: x if x.is_meta else x.to(device) for name, x in feed.items()}
    with pytest.raises(EngineError, match=says) as caught:
        engine(feed)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "shapes, says",
    [
        ({"z": SHAPE}, "takes x, a shape is given for z"),
        ({"x": (1, 4, 4, 6)}, r"'x'.*\[1, 4, 4, 6\]"),
        ({"x": (3, 4, 6)}, r"'x'.*\[3, 4, 6\]"),
    ],
)
def test_a_size_it_was_not_built_for_is_refused_when_opened(network, backend, device, shapes, says):
    with pytest.raises(EngineError, match=says):
        open_engine(network, backend, device, shapes=shapes)


@pytest.mark.parametrize("backend", backend_names())
@pytest.mark.parametrize("device", ["cuda:99", "npu"])
def test_a_backend_that_cannot_run_says_why_and_what_to_do(network, backend, device):
    reason = missing(backend, device)
    what, _, remedy = reason.partition(": ")
    assert what and remedy and "\n" not in reason
    with pytest.raises(BackendMissing) as caught:
        open_engine(network, backend, device)
    assert str(caught.value) == reason


def test_one_that_can_run_is_taken_when_asked_for_by_name(place):
    backend, device = place
    assert choose_backend(backend, device) == (backend, "asked for")


def test_some_backend_runs_on_a_cpu_and_auto_takes_it_and_says_why():
    name, why = choose_backend("auto", "cpu")
    assert name == "onnxruntime" and "cpu" in why


def test_auto_without_a_card_gives_every_reason():
    with pytest.raises(BackendMissing) as caught:
        choose_backend("auto", "cuda:99")
    for name in ("onnxruntime", "tensorrt ", "tensorrt-rtx"):
        assert name in str(caught.value)
