"""A graph at work in several processes: a run that supervises, a pool of workers, and what they say to
one another.

`ProcessRun` (`process_run.py`) hears the workers and decides; the pool begins and ends their lives; `epochs.py` holds
the epochs of the links. By default a file runs in one process, a live source as capture, main and a process for each
sink: PyAV's timeout takes the GIL for every packet, a frozen peer blocks a sink for seconds, and kernels of several
processes take turns on a card.

- Fork server. Processes are forked from one that has loaded everything and opened nothing: a start takes milliseconds
  instead of the seconds that importing torch takes, and the code is in memory once. It ends with the run's process,
  kills what is left and removes it; the kernel kills the workers if it dies itself.
- Liveness is ZeroMQ's own heartbeat on the channel to each worker (`channel.py`), answered by a thread of its I/O that
  needs no GIL: a stage that holds the interpreter is not taken for dead, a stopped process is found within two seconds.
  A channel that breaks and is back before that costs an epoch: the worker says HELLO again, for nobody knows what was
  lost on it. A stage hangs when its call has lasted longer than `stage_deadline_s`, or when its sender has had a frame
  and no credit for as long while it had none and was in no call (`health.py`).
- Epochs. Whatever goes wrong ends the epoch of all links: the survivors let go of their ends and keep their stages
  open, what died is started again (5 times a minute, from 0.5 s), and the next epoch begins with a discontinuity. There
  is no second mechanism: a stage that raises does the same, in one process too, at the cost of a frame.
- Where it goes on. A file is read again from the first frame that some sink lacks, and sinks leave out what they have:
  no frame is lost, doubled or reordered. A file that died unfinished with its sink's process is written again from its
  beginning. A live source goes on with what comes next; what was on its way counts as dropped, by reason. With
  `--frames N` every file gets N frames, the one begun anew too.
- A stage that raises costs its frame, in files too: an hour of film is worth more than a frame, whose neighbours keep
  their times. Five in a row of one stage end the run. In a `Pipeline` the first does: every push waits for its picture.
- Far hosts run `warpfuse worker GRAPH.yaml NAME` by hand. Channels and links are CURVE; clocks are aligned by the
  quickest of some round trips (`links/clock_offset.py`). A worker whose way was cut says HELLO again when it is back. A
  link that was cut alone costs an epoch and, of a file, no frame.

Some servers take one connection, so a live source is connected before there is a plan, by the process that will read it
(`source_probe.py`). FFmpeg cannot be interrupted while it connects: a stop kills that process, or in one process leaves
the thread behind, which closes what it gets."""
