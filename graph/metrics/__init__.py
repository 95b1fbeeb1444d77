"""Figures of a run: counters and histograms, their sums over workers, Prometheus and traces.

Histograms are merged over workers and their restarts. There is one of the calls of each stage, and one of the hops on
each link. A hop lasts from the sender's time in the message until the reader takes the frame, waiting included. `age`
is how old a picture had become when the next one replaced it. Latency does not show that when frames are dropped.
`control` is how long who changes the settings waits for the first picture made with them: one frame, as many as a
stream batch has rows, and those that wait in links besides.
"""
