"""The control page of a running graph: server, interface and live preview."""
