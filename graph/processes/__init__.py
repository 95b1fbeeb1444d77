"""A graph at work in several processes: a supervisor, a pool of workers, and what they say to one another."""
