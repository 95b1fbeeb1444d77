"""The two ends of a link, on ZeroMQ sockets: `Outlet` sends, `Inlet` receives.

ROUTER binds, DEALER connects, one pair a link; `sockets.py` says with which options and why. Where values lie is the
business of a `slots.Store` and a `slots.Access`: in this process, in shared memory, on a card, or behind the messages.

An end belongs to one thread. It is closed by whoever made it, after all threads are done, and may be made again with a
higher epoch. Messages of another epoch are ignored, those that do not fit what was agreed are refused; both are
counted, and neither is obeyed.
"""

from warpfuse.graph.links.inlet import Inlet
from warpfuse.graph.links.link_plan import LinkPlan
from warpfuse.graph.links.outlet import Outlet

__all__ = ["Inlet", "LinkPlan", "Outlet"]
