"""The stages' arithmetic on a CPU, as loops compiled for the processor they run on. On a card none of it is called.

On a CPU a picture costs the memory it goes through, and a chain of library calls goes through it once a call. A loop
goes through it once. numba compiles the loops, once for a machine (`compile.py`). Tests hold each loop to the torch
formula it stands for.
"""
