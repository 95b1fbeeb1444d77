"""A graph at work in one process: stages and networks opened, a thread for each lane."""
