"""What this machine makes of a bundle: every figure beside the floor under it.

It is a command of users, `warpfuse bench`, which asks what their machine can hold. The folder `bench/` is not
installed: it asks what a change of this project did, one question a file, and answers in `bench/LOG.md`.
"""
