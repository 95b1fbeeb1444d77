"""A graph at work in one process: stages and networks opened, a thread for each lane.

A worker is some stages (`worker.py`): opened once, connected anew for each epoch (`wiring.py`). Meters, the trace, the
time of the call a stage is in, and taps are each stage's own, whatever lane it is in. ONNX Runtime's idle threads do
not spin. `bench/bench_overhead.py` compares with a plain loop, `bench/bench_host_work.py` tells what the stages
themselves cost, and `tests/app/benchmark/test_hot_path.py` counts fresh memory, copies, network calls and messages.

Several streams (`streams_run.py`) share networks (`shared_engine.py`). Each stream is a graph of its own, so what one
remembers cannot reach another, and one that fails or stalls is nobody else's business. Rows queue; whoever finds the
network free makes one call for the oldest row and for all that fit behind it, and the others get their rows of the
answer. No thread gathers, and nobody waits for a stream that has nothing: rows meet while the network is busy. Two
streams that take turns never meet, so where a call of many rows costs what one of one row does, `gather_ms` lets a call
wait that long at most for those that shared one of the last two; 0 by default, since on a processor it only costs
(`bench/LOG.md`). A call that fails is made again row by row, so it fails for the stream to blame alone. Only the UNet
takes rows of several streams at once. How many share a call: `batch`, or one of each stream, and never more than the
UNet was built for.

The pictures are those of the stream alone: the network's arithmetic has to be the same for any number of rows for that
to hold to the bit, and the embedded UNet's is, by ONNX Runtime on a CPU."""
