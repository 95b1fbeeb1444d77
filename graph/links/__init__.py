"""What carries frames between lanes: two ends, slots of memory with credits, and what is said over sockets."""
