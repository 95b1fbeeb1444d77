"""What happens to a frame: sources, flow, encode, predict, warp, fuse, decode, sinks, and the sampling mathematics."""
