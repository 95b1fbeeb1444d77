"""The control page of a running graph: server, interface and live preview.

A session has at most one run. Its source goes through a gate that can be closed, the page is one more sink, and a tap
sees what `flow` gives. While nobody looks a frame costs the references that are kept until its picture is shown, so
that source, motion and picture of a view are of the same frame. What viewers see is composed and encoded once for all
of them, when the first asks; who is slow sees fewer pictures, never older ones.

`security.py` stands in front of every request: the Host must be a name of this server (DNS rebinding), the Origin of
whatever changes something and of WebSockets the server's own, bodies are bounded, and off loopback a token is asked
for. A page that others reach cannot name files. Settings go through the same model as YAML and flags, so its error
texts are theirs. `static/` is plain ES modules, without a build; the policy lets nothing in from elsewhere.
"""
