"""The stages' arithmetic on a CPU, as loops compiled for the processor they run on. On a card none of it is called."""
