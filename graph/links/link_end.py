"""The base class of both ends of a link."""

import logging

import zmq

from warpfuse.graph.errors import WireError
from warpfuse.graph.links.link_plan import LinkPlan

_log = logging.getLogger(__name__)


class LinkEnd:
    """One end of a link, with the counters that both ends have.

    refused    messages that broke the protocol
    complaint  what was wrong with the last one refused; None before the first
    stale      messages of another epoch, or from a reader of another epoch
    """

    def __init__(self, plan: LinkPlan, socket: "zmq.Socket[bytes]", epoch: int) -> None:
        self.plan = plan
        self.socket = socket
        self.refused = 0
        self.stale = 0
        self.complaint: str | None = None
        self._epoch = epoch

    def _refuse(self, error: WireError) -> None:
        self.refused += 1
        text = f"link {self.plan.name}: {error}"
        if self.complaint is None:  # log the first only: a faulty peer must not fill the log
            _log.warning("refused a message: %s", text)
        self.complaint = text
