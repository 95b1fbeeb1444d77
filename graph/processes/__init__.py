"""A graph at work in several processes: a supervising run, a pool of workers, and the protocol between them.

`ProcessRun` (`process_run.py`) is the supervisor. It receives the workers' messages and decides. The pool starts and
ends worker processes, and `epochs.py` begins and ends the epochs of the links. By default a file runs in one process.
A live source runs in a process for capture, one for the networks and one for each sink, for three reasons: PyAV's
timeout takes the GIL for every packet, an unresponsive peer blocks a sink for seconds, and kernels of several processes
take turns on a card.

- Fork server. Workers are forked from a process that has loaded everything and opened nothing. So a start takes
  milliseconds instead of the seconds for importing torch, and the code is in memory once. When the run's process ends,
  the fork server kills the workers and removes what they left. If the fork server dies, the kernel kills the workers.
- Liveness is ZeroMQ's own heartbeat on the channel to each worker (`channel.py`). An I/O thread answers it without the
  GIL. So a stage that holds the GIL is not taken for dead, and a stopped process is detected within two seconds. A
  channel that breaks and reconnects before that costs an epoch, since messages may have been lost: the worker sends
  HELLO again. A stage hangs when its call has lasted longer than `stage_deadline_s`. It also counts as hanging when for
  that long it was in no call and had no frame while its sender had a frame and no credit (`health.py`).
- Epochs. Every failure ends the epoch of all links. The surviving workers close their ends and keep their stages open.
  A dead worker is started again, up to 5 times a minute and at first after 0.5 s. The next epoch begins with a
  discontinuity. A stage that raises is handled the same way, also in a run of one process, and costs a frame.
- Resuming. A file is read again from the first frame that some sink lacks, and sinks skip the frames they have. So no
  frame is lost, repeated or reordered. An output file that was unfinished when its sink's process died is written again
  from its beginning. A live source continues with its next frame; frames in flight count as dropped, by reason. With
  `--frames N` every output file gets N frames, also one that was begun again.
- A stage that raises costs its frame, in files too: an hour of film is worth more than one frame, and the other frames
  keep their times. Five failures of one stage in a row end the run. In a `Pipeline` the first one does, because every
  push waits for its picture.
- Remote hosts. A user runs `warpfuse worker GRAPH.yaml NAME` on them. Channels and links use CURVE. Clocks are aligned
  by the quickest of some round trips (`links/clock_offset.py`). A worker whose connection was cut sends HELLO again
  when it is back. A link that is cut alone costs an epoch and, with a file, no frame.

Some servers accept only one connection. So the process that will read a live source connects to it before the graph is
planned (`source_probe.py`). FFmpeg cannot be interrupted while it connects. Stopping the run then kills that process;
in a run of one process it abandons the connecting thread, which closes the connection as soon as it has it."""
