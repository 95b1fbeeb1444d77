"""The backends. Each is a module here or an entry point of `warpfuse.backends`, named as the backend, with `_` for `-`.

Each has `missing(device) -> str | None` (the reason why it cannot run there, ": ", the remedy) and
`open(path, device, threads=0, shapes=None)`.
"""
