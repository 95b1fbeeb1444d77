"""Links, which carry frames between lanes. A link has two ends, slots of memory, credits, and a pair of sockets.

The sender's ROUTER (`outlet.py`) binds and the receiver's DEALER (`inlet.py`) connects, one pair a link. Every socket
option is set and explained in `sockets.py`. A message (`messages.py`) is a fixed head of 12 bytes and a typed
MessagePack body. The body is validated and never pickled. The transport decides where a frame's data lie:

| transport | between | the reader gets | copies |
|---|---|---|---|
| local | threads | the object itself, by reference (`slots.py`) | none |
| shm | processes of a host | views of a slot in a file in /dev/shm (`shared_slots.py`) | one, by the sender |
| cuda-ipc | processes on one card | views of a pool exported once, ordered by two events a slot | one, on the card |
| inline | hosts | planes behind the message, raw, lz4 or JPEG (`inline.py`); tcp with CURVE only | the network's |

`tensor_layout.py` turns a frame into planes and back. It keeps the memory layout too, since the last bit of a
network's output depends on it.

- Borrowed memory. A value from a slot is valid until `done`. A reader that keeps a frame longer copies it
  (`stages/borrowed.py`). Borrowed memory is recognized by its address, so views of it are recognized too. The slot's
  generation is checked before and after use, which detects a slot that was filled again too early.
- Epochs. A link starts again by closing both ends and opening them with a higher epoch. Messages of another epoch are
  ignored, messages that do not fit the slot table are refused, and both are counted. A second connection of the reader
  or a wrong number of frames at the end raises `LinkCut`, and the run then begins a new epoch.
- Owners. A process holds a lock on its folder in shared memory, and `sweep` removes folders without a lock. A table is
  allocated before it is written, so that a full tmpfs is an error and not SIGBUS. A table is replaced by a larger one
  when a frame does not fit: the first frame of a feedback link is empty.
- Credits. Every frame sent uses up a credit. ZeroMQ's high-water mark cannot bound the delay of messages this small,
  because ZeroMQ's batches and the kernel's buffers hold hundreds of them. It is set to 64 as a safeguard only. A credit
  wakes the sender's thread only while a frame waits for it, since a wake-up costs more than the message. With two
  credits a link, the reader works on one frame while the next lies ready.
- Mailbox. A frame without a credit waits in the sender's mailbox. When the mailbox is full, the policy `block` makes
  the sender wait (files) and `latest` drops the older frame.
- Slots = 1 being written + mailbox + credits, so a free slot exists whenever one is needed.
- Delay. A feedback link starts with that many empty frames, so that the loop can start.
- Room. A live source reads one more link: a bare feedback link from `download` that starts with `in_flight` frames. It
  limits the frames on their way through the whole graph. Without it, two frames a link added up to a delay of ten frame
  periods as soon as a network was slower than the camera. Frames are dropped before this link only. So `--frames N` is
  counted here, and a new epoch replaces the frames that the last one lost.

A thread waits in one place, a poll over its own sockets. Frames, credits, the end of the stream and failures all arrive
there. A file source blocks in `read`, so it sends its frame before it reads the next. A live source is read by a
thread of its own.
"""
