"""The two ends of a link, on ZeroMQ sockets: `Outlet` sends, `Inlet` receives.

ROUTER binds, DEALER connects, one pair a link; `sockets.py` explains their options. A `slots.Store` and a
`slots.Access` hold the frames' data: in this process, in shared memory, on a card, or behind the messages.

An end belongs to one thread. Its creator closes it when all threads have finished, and may open it again with a higher
epoch. Messages of another epoch are ignored and messages that do not fit the plan are refused. Both are counted.
"""

from warpfuse.graph.links.inlet import Inlet
from warpfuse.graph.links.link_plan import LinkPlan
from warpfuse.graph.links.outlet import Outlet

__all__ = ["Inlet", "LinkPlan", "Outlet"]
