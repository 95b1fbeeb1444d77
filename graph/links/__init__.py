"""What carries frames between lanes: two ends, slots of memory with credits, and what is said over sockets.

The sender's ROUTER (`outlet.py`) binds, the receiver's DEALER (`inlet.py`) connects, one pair a link. Every socket
option is set and explained in `sockets.py`. What crosses is a message (`messages.py`): a fixed head of 12 bytes, then a
typed MessagePack body, validated, never pickle. Where the value lies is the transport's business:

| transport | between | the value | copies |
|---|---|---|---|
| local | threads | itself, by reference (`slots.py`) | none |
| shm | processes of a host | views of a slot, a file in /dev/shm (`shared_slots.py`) | one, by the sender |
| cuda-ipc | processes on one card | views of a pool exported once, ordered by two events a slot | one, on the card |
| inline | hosts | planes behind the message, raw, lz4 or JPEG (`inline.py`); tcp with CURVE only | the network's |

`tensor_layout.py` turns a frame into planes and back, layout in memory included: a network's last bit depends on it.

- Borrowed memory. A value from a slot is valid until `done`. Who keeps a frame longer copies it (`stages/borrowed.py`).
  Borrowed memory is known by its address, so views of it are too. A generation in the slot, checked before and after
  use, tells when somebody forgot.
- Epochs. An end is closed and made again with a higher one. Messages of another epoch are ignored, those that do not
  fit the table refused; both are counted. A connection that comes back, or an end that does not add up, is a cut link
  (`LinkCut`), which a new epoch mends.
- Owners. A process's folder in shared memory is locked by it. `sweep` removes those nobody holds. Tables are allocated
  before they are written (a full tmpfs is an error, not SIGBUS) and grow: the first frame of a feedback is empty.
- Credits. Nothing is sent without one. ZeroMQ's high-water mark bounds no delay for messages this small (its batches
  and the kernel's buffers hold hundreds), so it stands at 64 as a fuse and limits nothing. A thread is woken by a
  credit only while a frame waits for one: a wake-up a link and frame costs more than the message. With two credits a
  link, one frame is worked on while the next lies ready.
- Mailbox. A frame without a credit waits in the sender's mailbox: `block` (files) or `latest`.
- Slots = 1 being written + mailbox + credits, so a free slot exists whenever one is needed.
- Delay. A feedback link starts with that many empty frames, which lets the loop start.
- Room. A live source reads one more link: a bare feedback from `download` that starts with `in_flight` frames. So that
  many are on their way and no more, whatever links could hold. Without it two frames a link made ten periods of delay
  as soon as a network was slower than the camera. What is dropped is dropped before this link, so here `--frames N` is
  counted, and a new epoch makes up for what the last one lost.

A thread waits in one place, a poll over its own sockets: frames, credits, the end of the stream and failures arrive
there. A file source blocks in `read`, so it hands its frame over before it reads the next; a live one is read by a
thread of its own.
"""
