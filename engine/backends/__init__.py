"""One file a backend; the file's name is the backend's name.

Each has `missing(device) -> str | None` (why it cannot run there, with the remedy) and `open(path, device, **options)`.
"""
