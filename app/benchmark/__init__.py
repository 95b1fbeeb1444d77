"""Measuring the speed of a bundle on this machine, with the physical lower bound ("floor") of every figure.

This is the command `warpfuse bench` for users, who want to know what their machine can do. The folder `bench/` is not
installed: it measures changes of this project, one question a file, with results in `bench/LOG.md`.
"""
