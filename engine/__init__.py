"""Run one network on one device: the `Engine` contract, its backends, and the bundles the networks come in.

Precision. The embedded UNet is there twice, as trained and in 8-bit integers, which a processor with VNNI multiplies
four times as fast. `precision.py` chooses once, where the backend is chosen, by the processor's flags; workers are
told, so every placement runs the same file. Integers have ranges fixed when the file was made, so a row's bytes do not
depend on the rows beside it; without VNNI ONNX Runtime is told to add them exactly, and they run right, but no faster.
Only the inner convolutions of the UNet are rounded: the first two and the last stay, so strength 0 is still the source
to the bit, and encoder and decoder stay, since what they rounded the loop would collect (`bench/LOG.md`).

Backends. The feed is checked alike for all (`feed.py`) and every engine has two output slots. Opened with `shapes` it
takes one size: TensorRT needs that, a plan has one size. On a card torch and TensorRT copy into bound addresses and
replay a CUDA graph for each slot (`replay.py`), always on one stream. `auto` is ONNX Runtime, on a card too: it opens
any size at once, where TensorRT builds first. What is faster there is built meanwhile in a process of its own
(`background.py`: a build holds cores, memory and Python's lock, and may die) and takes over between two frames.
`swap.py` takes a new engine over when it agrees on a real input: every value within 0.05 of the largest, on the mean
within a tenth of that. `--stats` names what every network ended on, as in `onnxruntime+tensorrt-rtx`.

Plans. A plan is an artifact (`artifacts.py`): keyed by everything it depends on, written under a temporary name,
renamed, its description last, one builder at a time. A bundle exported on a laptop for `sm89` brings its plans to the
card, in `plans/`. But a plan is a program, and nothing in it can be checked: NVIDIA says to open none from an untrusted
source. So `brought_plans.py` opens them only in folders named in $WARPFUSE_TRUSTED_PLANS, passes others over with a
warning, and never writes there. A `.pt2` is read before torch opens it (`pt2_archive.py`): torch alone would unpickle
and evaluate what is in it.

Bundles. `bundle.py` opens one, `bundle_writing.py` writes it. The UNet takes `x`, `level` (alpha, sigma), and `style`
or the tensors of a text prompt; where `takes_source` is set the clean latent of the source frame too. Its `output` is
what `prediction` says. There are three kinds: latent diffusion; flow (`cur`, `prev` -> `flow`, `flow_back`, at one size
or at any multiple of some pixels); autoencoder (encoder and decoder alone).

On a card every lane works on a CUDA stream of its own. What leaves it carries an event (`Frame.ready`), and the
reader's stream waits for it when the frame is taken: not earlier, or it would stand in front of work on frames the
reader has not come to (`cuda_streams.py`). Only two threads ever wait for the device, each for the event of its own
copy to the host: `download`, and `flow` with DIS. Times of stages are the device's own, read from events once they are
over.

Secrets. `address.py` knows where the password of an address ends, for FFmpeg takes it percent-encoded. `redact.py`
takes secrets out of text; `guard_process` puts it under the logging layer and the tracebacks of a process.
"""

from warpfuse.engine.bundle import Bundle, FlowBundle, load_bundle, load_flow_bundle
from warpfuse.engine.contract import Engine, TensorSpec
from warpfuse.engine.open import open_engine

__all__ = ["Bundle", "Engine", "FlowBundle", "TensorSpec", "load_bundle", "load_flow_bundle", "open_engine"]
