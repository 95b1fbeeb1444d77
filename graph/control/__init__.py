"""Asking a run that is under way: the messages, and the folder where its socket is found."""
