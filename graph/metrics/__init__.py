"""What is counted while a run works, how it adds up, and how it is told: figures, Prometheus, traces."""
