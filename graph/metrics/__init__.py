"""What is counted while a run works, how it adds up, and how it is told: figures, Prometheus, traces.

Histograms are merged over workers and lives: the calls of each stage, and the hop on each link, from the stamp its
sender puts into the header until its reader takes the frame, waiting included. `age` says how old what was shown had
become, which latency hides when frames are dropped.
"""
