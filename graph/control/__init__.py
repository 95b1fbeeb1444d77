"""A run under way (`run.py`), and asking it from outside: messages, server, the folder of its socket.

Requests are typed (`messages.py`) and go to a socket in the run's folder (0700; its lock holds the name and says that
the run lives). New settings go to every worker before the source stamps a frame with them, and are acknowledged with
the number of that frame.
"""
