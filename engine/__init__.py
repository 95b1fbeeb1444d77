"""Run one network on one device: the `Engine` contract, its backends, and the bundles the networks come in.

Precision. The embedded bundle has its UNet as trained and in 8-bit integers, which a processor with VNNI multiplies
four times as fast. `precision.py` chooses one when the backend is chosen, by the processor's flags. Workers are told
the choice, so every placement runs the same file. The ranges of the integers are fixed in the file, so a row's output
does not depend on the other rows of a call. Without VNNI, ONNX Runtime adds the integers exactly, so results are
correct but not faster. Only the inner convolutions of the UNet are quantised. The first two and the last are not, so
that strength 0 still gives the source bit for bit. Encoder and decoder are not, because their rounding errors would
accumulate in the loop (`bench/LOG.md`).

Backends. All check their input alike (`feed.py`), and every engine has two output slots. An engine opened with `shapes`
takes one size. TensorRT needs that, because a plan has one size. On a card, torch and TensorRT copy into fixed
addresses and replay a CUDA graph for each slot (`replay.py`), always on one stream. `auto` means ONNX Runtime, on a
card too: it opens any size at once, whereas TensorRT builds first. A faster engine is meanwhile built in another
process (`background.py`), because a build takes cores, memory and Python's lock, and may crash. `swap.py` changes to
the new engine between two frames if both agree on a real input: every value within 0.05 of the largest value, and on
the mean within a tenth of that. `--stats` names the last backend of every network, as in `onnxruntime+tensorrt-rtx`.

Plans. A plan is an artifact (`artifacts.py`). Its key holds everything it depends on. It is written under a temporary
name and renamed, its description last, by one builder at a time. TensorRT times kernels to choose them. A plan built
beside a run is therefore kept apart, and makes way for one that `--backend tensorrt` builds before a run. A bundle
exported on a laptop for `sm89` can bring its plans to the card, in `plans/`. But a plan is a program, and nothing in it
can be checked; NVIDIA warns against opening one from an untrusted source. So `brought_plans.py` opens only plans in
folders named in $WARPFUSE_TRUSTED_PLANS, ignores others with a warning, and never writes there. A `.pt2` is checked
before torch opens it (`pt2_archive.py`), because torch would unpickle and evaluate its contents.

Bundles. `bundle.py` opens a bundle, `bundle_writing.py` writes it. The UNet takes `x`, `level` (alpha, sigma), and
`style` or the tensors of a text prompt; if `takes_source` is set, also the clean latent of the source frame. Its
`output` is what `prediction` names. The kinds are: latent diffusion; flow (`cur`, `prev` -> `flow`, `flow_back`, at one
size or at any multiple of some pixels); autoencoder (encoder and decoder alone); map (a picture to a map of it).

On a card every lane has its own CUDA stream. A frame that leaves a lane carries an event (`Frame.ready`). The reader's
stream waits for it when the frame is taken. Were the wait issued earlier, it would block the work on earlier frames
that the reader has yet to issue (`cuda_streams.py`). Only two threads ever wait for the device, each for the event of
its own copy to the host: `download`, and `flow` with DIS. Times of stages are measured on the device, with events that
are read once they have occurred.

Secrets. `address.py` finds where the password of an address ends, and encodes it for FFmpeg. `redact.py` removes
secrets from text; `guard_process` applies it to all log records and tracebacks of a process.
"""

from warpfuse.engine.bundle import Bundle, FlowBundle, load_bundle, load_flow_bundle
from warpfuse.engine.contract import Engine, TensorSpec
from warpfuse.engine.open import open_engine

__all__ = ["Bundle", "Engine", "FlowBundle", "TensorSpec", "load_bundle", "load_flow_bundle", "open_engine"]
