"""What the package does on a card, in pieces that take a moment: each runs without a race, and with one that a
mutation brings in.

A scenario takes (card, folder). It waits for the device only where the package does, or at its end.
"""

import threading
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from types import SimpleNamespace

import torch
import zmq
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from support import exact
from support.card.tensors import plain
from support.in_process import Kept, shown_by
from support.networks import SHAPE, affine
from warpfuse.engine import open_engine
from warpfuse.engine.bundle_parts import StyleImage, TextPrompt
from warpfuse.engine.contract import TensorSpec
from warpfuse.engine.cuda_streams import DownloadRing, UploadRing, new_stream, on
from warpfuse.engine.replay import Replay
from warpfuse.engine.swap import SwappingEngine
from warpfuse.engine.tensorrt_module import TENSORRT
from warpfuse.export import plans
from warpfuse.graph.links.link_plan import LinkPlan
from warpfuse.graph.links.transports import open_inlet, open_outlet
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.placement import workers_of
from warpfuse.graph.plan.planner import plan_graph
from warpfuse.graph.plan.setting_versions import SettingsBook
from warpfuse.graph.runtime.context import prepare_source
from warpfuse.graph.runtime.endpoints import Endpoints
from warpfuse.graph.runtime.failures import Faults
from warpfuse.graph.runtime.shared_engine import SharedEngine
from warpfuse.graph.runtime.source_runner import ResumePoint
from warpfuse.graph.runtime.worker import Worker
from warpfuse.stages.card_decoder import CardDecoder
from warpfuse.stages.diffusion.image_tokens import ImageTokens
from warpfuse.stages.diffusion.prompts import TextPrompts
from warpfuse.stages.diffusion.style_images import StyleImageSettings
from warpfuse.stages.frame import Latent, Mask, Motion, Picture, Stamp
from warpfuse.stages.sources import open_source
from warpfuse.stages.transfer.upload import Upload
from warpfuse.web.motion import MotionView
from warpfuse.web.pictures import Pictures

CARD = "cuda:0"


def picture(n):
    return torch.full((8, 8, 3), n, dtype=torch.uint8)


def full(value, shape=SHAPE):
    """Written on the current stream, in memory of it."""
    return torch.full(shape, float(value), device=CARD) + 0


def pictures_go_up(card, folder):
    ring = UploadRing((8, 8, 3), torch.uint8, CARD)
    with on(new_stream(CARD)):
        for n in range(6):
            ring.upload(picture(n)).sum()


def pictures_come_down(card, folder):
    ring = DownloadRing((8, 8, 3), torch.uint8, CARD)
    with on(new_stream(CARD)):
        for n in range(6):
            assert int(ring.download(full(n, (8, 8, 3)).to(torch.uint8)).wait().numpy().max()) == n


class _Surface:
    """A picture as NVDEC gives it: NV12 in memory that the decoder writes on the default stream, and takes back."""

    width, height, colorspace, color_range, color_trc, color_primaries = 16, 16, 1, 1, 1, 1
    format = sw_format = SimpleNamespace(name="nv12", is_rgb=False)

    def __init__(self, card, n):
        with card.cuda.stream(card.default):
            self._memory = full(n, (24, 16)).to(torch.uint8)
        y, uv = self._memory[:16], self._memory[16:].view(8, 8, 2)
        self.planes = [SimpleNamespace(__dlpack__=partial(torch.utils.dlpack.to_dlpack, plain(x))) for x in (y, uv)]


def pictures_come_decoded(card, folder):
    decoder, upload = CardDecoder(CARD), Upload((16, 16), CARD)
    sums = []
    with on(new_stream(CARD)):
        for n in range(8):
            sums.append(upload(decoder.taken(Stamp(n, 0), _Surface(card, 16 + n), None)).rgb[:, 0].mean())
        upload.close()
        kept = [_Surface(card, 255) for _ in range(6)]  # the decoder goes on
    card.cuda.synchronize()
    assert len(kept) == 6
    # chroma of 16 + n is that far from grey
    reds = [((n - 0) * 255 / 219 + 1.5748 * (16 + n - 128) * 255 / 224) / 255 for n in range(8)]
    assert all(abs(float(found) - max(0, red)) < 1 / 255 for found, red in zip(sums, reds, strict=True))


def a_session_runs(card, folder):
    engine = open_engine(affine(folder / "affine.onnx"), "onnxruntime", CARD)
    with on(new_stream(CARD)):
        for n in range(4):
            engine({"x": full(n)})["y"].sum()
        engine.close()


def a_graph_is_replayed(card, folder):
    outputs = [{"y": torch.empty(16, device=CARD)} for _ in range(2)]
    with on(new_stream(CARD)):
        x = full(0, (16,))
        replay = Replay({"x": x}, outputs, lambda slot: outputs[slot]["y"].copy_(x))
        for n in range(4):
            replay({"x": full(n, (16,))})["y"].sum()


def a_plan_runs(card, folder):
    engine = open_engine(affine(folder / "affine.onnx"), "tensorrt", CARD, shapes={"x": SHAPE})
    with on(new_stream(CARD)):
        torch.zeros(1, device=CARD)  # a frame has come: what opened the network is over
        card.current().wait_event(card.default.record_event())
        for n in range(4):
            engine({"x": full(n)})["y"].sum()
        engine.close()


def a_plan_is_tried(card, folder):
    """As the exporter does with what it has built."""
    network = affine(folder / "affine.onnx", shape=SHAPE)
    gpu = f"{card.cuda.get_device_name()} sm89"
    plans.plan_for(TENSORRT, network, None, gpu, plans.ArtifactCache(folder))
    x = torch.ones(SHAPE)
    assert torch.equal(plans.run_plan(folder, network, TENSORRT, gpu, {"x": x})["y"], 2 * x)


class Busy:
    """A network y = 2 x in memory of its own, the same for every call. It says when it is called, and waits."""

    backend, device = "test", CARD
    inputs, outputs = (TensorSpec("x", "float32", (None, 4)),), (TensorSpec("y", "float32", (None, 4)),)

    def __init__(self):
        self.memory = torch.zeros(8, 4, device=CARD)
        self.called, self.may = threading.Event(), threading.Event()

    def __call__(self, feed):
        self.called.set()
        self.may.wait()
        return {"y": torch.mul(feed["x"], 2, out=self.memory[: feed["x"].shape[0]])}

    def close(self):
        pass


def streams_share_a_network(card, folder):
    """One is in it; two more wait, and the first of them to get it serves both."""
    network = Busy()
    shared = SharedEngine(network)
    wrong = []

    def ask(number, client):
        with on(streams[number]):
            wrong.append((client({"x": full(number, (1, 4))})["y"] != 2 * number).any())

    streams = [new_stream(CARD) for _ in range(3)]
    threads = [threading.Thread(target=ask, args=(n, shared.client())) for n in range(3)]
    card.cuda.synchronize()
    threads[0].start()
    network.called.wait()
    for thread in threads[1:]:
        thread.start()
    while shared.waiting < 2:
        threading.Event().wait(0.001)
    network.may.set()
    for thread in threads:
        thread.join()
    for stream in streams:
        with on(stream):
            kept = [full(-1, (1, 4)) for _ in range(4)]  # whoever is given what was let go writes to it
    card.cuda.synchronize()
    assert len(kept) == 4 and not any(bool(one) for one in wrong)


class Encoder:
    """A text encoder on the card: its context is its tokens."""

    device = CARD

    def __call__(self, inputs):
        return {"context": inputs["tokens"].float().view(1, 6, 1)}

    def close(self):
        pass


def _prompts(folder, **keys):
    tokenizer = Tokenizer(models.WordLevel({"old": 0, "ink": 1, "?": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    one = {"tokenizer": "tokenizer.json", "length": 6, "start": 90, "end": 91, "pad": 92}
    about = TextPrompt.model_validate({"inputs": {"tokens": one}, "default_prompt": "ink", **keys})
    return TextPrompts(Encoder(), about, {"tokens": folder / "tokenizer.json"})


def a_prompt_is_encoded(card, folder):
    found = _prompts(folder)("old (ink:2)")
    with on(new_stream(CARD)):
        found.given["context"].sum()


def no_prompt_is_zeros(card, folder):
    prompts = _prompts(folder, zeros_for_none=True)
    found = prompts("ink")
    with on(new_stream(CARD)):
        found.unconditional["context"].sum()


def a_picture_is_a_prompt(card, folder):
    """Its tokens are joined after the network; the stage that takes them works on a stream of its own."""

    class Eyes:
        def __call__(self, inputs):
            return {name: inputs["rgb"].mean().expand(1, 4, 8) for name in ("tokens_0", "none_0")}

    Image.new("RGB", (16, 16), (200, 30, 30)).save(folder / "red.png")
    tokens = ImageTokens([StyleImage(name="style", network=0, size=16, tokens=4, width=8)], lambda n: Eyes(), CARD)
    given, _ = tokens({"style": StyleImageSettings(picture=str(folder / "red.png"))})
    with on(new_stream(CARD)):
        given["image_tokens"].sum()


def masks_are_looked_at(card, folder):
    stage, pictures = new_stream(CARD), Pictures()
    pictures.viewers = 1
    with on(stage):
        pictures.saw_mask(Mask(Stamp(0, 0), full(1, (1, 1, 8, 8))))
    _apart(card, pictures._masks.pop(0).rgb)


def motion_is_looked_at(card, folder):
    stage = new_stream(CARD)
    for n in range(3):
        with on(stage):
            view = MotionView.of(Motion(Stamp(n, 0), full(n, (1, 2, 8, 8)), full(1, (1, 1, 8, 8))))
        _apart(card, view.fields)
        del view
        with on(stage):
            full(-1, (1, 2, 8, 8)), full(-1, (1, 1, 8, 8))


def maps_are_looked_at(card, folder):
    stage, pictures = new_stream(CARD), Pictures()
    pictures.viewers = 1
    for n in range(3):
        with on(stage):
            pictures.saw_map("edges", Picture(Stamp(n, 0), full(n, (1, 3, 8, 8))))
            found = pictures._maps.pop(n)["edges"]
        _apart(card, found.rgb)
        del found
        with on(stage):
            full(-1, (1, 3, 8, 8))


def _apart(card, work):
    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():  # its end is not told to this thread: what it waited for is its own
        threading.Event().wait(0.001)


def frames_cross_processes(card, folder):
    """Both ends of a link by CUDA IPC; the reader's stream is late, its host is not."""
    context = zmq.Context()
    plan = LinkPlan("a->b.x", "a", "b", "x", transport="cuda-ipc", endpoint=f"ipc://{folder}/card")
    outlet = open_outlet(context, plan, 1, device=CARD)
    sums = []

    def read():
        inlet = open_inlet(context, plan, 1, device=CARD)
        with on(new_stream(CARD)):
            while not (inlet.ended and not inlet.ready):
                inlet.socket.poll(0 if inlet.ready else 30_000)
                inlet.receive()
                while inlet.ready:
                    sums.append(inlet.take().z.sum())
                    inlet.done()
        inlet.bye()
        inlet.close()

    reader = threading.Thread(target=read)
    reader.start()
    with on(new_stream(CARD)):
        for n in range(8):
            while outlet.blocked:
                assert outlet.socket.poll(30_000)
                outlet.receive()
            outlet.offer(n, Latent(Stamp(n, 0), full(n, (1, 4, 4, 4))))
        outlet.finish()
        while not outlet.finished:
            assert outlet.socket.poll(30_000)
            outlet.receive()
    reader.join()
    outlet.close()
    context.destroy(0)
    card.cuda.synchronize()
    assert [float(one) for one in sums] == [64.0 * n for n in range(8)]


def _context(folder, **keys):
    bundle = folder / "exact"
    if not bundle.exists():
        exact.write(bundle)
    known = {"source": "pattern:48x32@25,frames=5", "sinks": ["null:"], "bundle": str(bundle), "device": CARD}
    config = validate({**known, "backend": "onnxruntime", **keys})
    return prepare_source(config)[1]


def shown(folder, **keys):
    """The pictures of a run in this process."""
    context = _context(folder, **keys)
    source = context.config.source
    return shown_by(context, lambda: open_source(source, size=context.size, frames=None), rewind=False)


def a_graph_runs(card, folder):
    assert len(shown(folder)) == 5


def a_graph_runs_on_plans(card, folder):
    assert len(shown(folder, backend="tensorrt")) == 5


def a_faster_network_takes_over(card, folder):
    """Built while the slower one runs, judged on an input, and the slower one closed two calls later."""
    network, coming, said = affine(folder / "affine.onnx"), Future(), []
    engine = SwappingEngine(open_engine(network, "onnxruntime", CARD), coming, said.append)

    def build():
        coming.set_result(open_engine(network, "tensorrt", CARD, shapes={"x": SHAPE}))

    builder = threading.Thread(target=build)
    with on(new_stream(CARD)):
        for n in range(8):
            if n == 2:
                builder.start()
                builder.join()
            engine({"x": full(n)})["y"].sum()
        engine.close()
    assert said == ["runs on tensorrt now, before on onnxruntime"]


def a_graph_runs_in_parts(card, folder):
    """Every stage in a worker of its own, as in processes: what they hand each other lies in memory of the card."""
    context, sink = _context(folder, workers="stages"), Kept()
    config = context.config
    plan = plan_graph(config, calls=context.calls, folder=str(folder))
    ends = Endpoints(lambda: open_source(config.source, size=context.size, frames=None), lambda url: sink, rewind=False)
    faults = Faults()
    with ExitStack() as undo:
        undo.callback(context.close)
        workers = []
        for name in workers_of(plan):
            worker = Worker(name, plan, context, ends, SettingsBook(config), faults, lambda: False, run=f"card-{name}")
            worker.open()
            undo.callback(worker.close)
            workers.append(worker)
        for worker in workers:
            worker.connect(1, ResumePoint())
        for lane in (lane for worker in workers for lane in worker.lanes):
            lane.join()
    if faults.error is not None:
        raise faults.error
    assert {link.transport for link in plan.links} == {"cuda-ipc", "shm"} and len(sink.shown) == 5
