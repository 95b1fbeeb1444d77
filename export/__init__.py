"""Make bundles: networks and their description, written to disk for the stages to run."""
