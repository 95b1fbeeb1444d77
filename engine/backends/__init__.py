"""One file a backend, or an entry point of `warpfuse.backends`; its name is the backend's name, with `_` for `-`.

Each has `missing(device) -> str | None` (why it cannot run there, then ": ", then the remedy) and
`open(path, device, threads=0, shapes=None)`.
"""
