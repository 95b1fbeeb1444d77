"""The control page of a running graph: server, interface and live preview.

A session has at most one run, of one stream or of several, of which one is shown and controlled. The page is a viewer
of the run (`viewing.py`): one more sink behind each stream, and taps that see what the source and `flow` give. While
nobody looks a frame costs the references that are kept until its picture is shown, so that source, motion and picture
of a view are of the same frame. What viewers see is composed and encoded once for all of them, when the first asks; who
is slow sees fewer pictures, never older ones.

`security.py` stands in front of every request: the Host must be a name of this server (DNS rebinding), the Origin of
whatever changes something and of WebSockets the server's own, bodies are bounded, and off loopback a token is asked
for. A page that others reach cannot name files. Settings go through the same model as YAML and flags, so its error
texts are theirs. `static/` is plain ES modules, without a build; the policy lets nothing in from elsewhere.
"""
