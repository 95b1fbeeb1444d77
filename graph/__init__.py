"""Runs of a graph of stages: configuration, planning, links, workers, figures. The stages themselves do the work."""
