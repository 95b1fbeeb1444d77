"""A graph at work in one process: opened stages and networks, and a thread for each lane.

A worker is a set of stages (`worker.py`). It is opened once and connected again for each epoch (`wiring.py`). Every
stage has its own meter, trace, start time of the call under way, and tap, whatever lane it is in. ONNX Runtime's idle
threads do not spin. `bench/bench_overhead.py` compares a graph with a plain loop, `bench/bench_host_work.py` measures
the stages themselves. `tests/app/benchmark/test_hot_path.py` counts allocations, copies, network calls and messages.

Several streams (`streams_run.py`) share networks (`shared_engine.py`). Each stream is a graph of its own. So no stream
sees another's state, and a stream that fails or stalls does not stop the others. Rows for a network wait in a queue.
The stage that finds the network free makes one call, for the oldest rows and for all that fit in beside them. The other
stages get their rows of the result. No thread collects rows, and no call waits for an idle stream: rows meet while the
network is busy. Two streams that take turns never meet that way. Where a call of many rows costs no more than a call of
one, `gather_ms` lets a call wait for the streams that shared one of the last two calls, and at most that long. It is 0
by default, since waiting gains nothing on a CPU (`bench/LOG.md`). A failed call is repeated for each stream's rows
alone, so that it fails only for the stream that caused it. Only the UNet takes rows of several streams in one call.
`batch` limits them; by default there is room for the rows of every stream, and never more than the UNet was built for.

A stream's pictures do not depend on the other streams. That holds to the bit where the network's arithmetic is the same
for any number of rows, as the embedded UNet's is with ONNX Runtime on a CPU."""
