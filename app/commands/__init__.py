"""The commands of `warpfuse` that are more than a call, a module each. `cli.py` has the others and the exit codes."""
