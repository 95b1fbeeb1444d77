"""What happens to a frame: sources, flow, encode, predict, warp, fuse, decode, sinks, and the sampling mathematics.

What sources, sinks and the graph need of time and threads stands once, in `timing.py`: the newest value (`Latest`), a
wake-up for pollers (`Waker`), pauses between tries (`Backoff`), times of one clock on another (`ClockMap`), ticks at a
constant rate (`Ticker`). What a file is written with is `engine/files.py`.
"""
