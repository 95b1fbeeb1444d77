"""The protocol of a run under way (`run.py`), and requests to it from other processes: messages, server, folder.

Requests are typed (`messages.py`) and are sent to a socket in the run's folder. The folder has mode 0700. Its lock
reserves the run's name and shows that the run is alive. New settings reach every worker before the source stamps a
frame with their version. The answer names the first frame with that stamp.
"""
