"""Open the ends of a link with the transport that its plan names.

A transport that this machine lacks is an error. `best` chooses one that works, before the link is planned.
"""

import re
from collections.abc import Callable
from typing import Any

import zmq

from warpfuse.graph.errors import TransportMissing
from warpfuse.graph.links import cuda_ipc
from warpfuse.graph.links.curve import Keys
from warpfuse.graph.links.inline import InlineAccess, InlineSlots
from warpfuse.graph.links.link import Inlet, Outlet
from warpfuse.graph.links.link_plan import LinkPlan, Transport
from warpfuse.graph.links.messages import Welcome
from warpfuse.graph.links.shared_memory import RunFolder, SharedTable, slot_bytes_for
from warpfuse.graph.links.shared_slots import SharedAccess, SharedSlots, Table
from warpfuse.graph.links.slots import Access, SlotTable, Store


def open_local(context: "zmq.Context[Any]", plan: LinkPlan, epoch: int) -> tuple[Outlet, Inlet]:
    """Open both ends of a link inside one process."""
    table = SlotTable(plan.slots)
    return Outlet(context, plan, table, epoch), Inlet(context, plan, table, epoch)


def open_outlet(
    context: "zmq.Context[Any]",
    plan: LinkPlan,
    epoch: int,
    *,
    folder: RunFolder | None = None,
    device: str = "cpu",
    keys: Keys | None = None,
) -> Outlet:
    """Open the sending end of a link to another process. Raises KeysMissing, TransportMissing.

    folder  this process's folder in shared memory, for shm
    device  the card the sender works on, for cuda-ipc
    keys    CURVE keys, for tcp
    """
    return Outlet(context, plan, _store(plan, epoch, folder, device), epoch, keys)


def open_inlet(
    context: "zmq.Context[Any]", plan: LinkPlan, epoch: int, *, device: str = "cpu", keys: Keys | None = None
) -> Inlet:
    """Open the receiving end of a link from another process. Raises KeysMissing, TransportMissing."""
    return Inlet(context, plan, _access(plan, device), epoch, keys)


def best(wanted: Transport, *, device: str = "cpu", say: Callable[[str], None]) -> Transport:
    """The wanted transport between two processes of this host, or shm where cuda-ipc does not work.

    say  called with the reason when it is not the wanted one
    """
    if wanted == "cuda-ipc":
        missing = cuda_ipc.missing(device)
        if missing is None:
            return wanted
        say(f"no cuda-ipc between processes: {missing}. Frames go through shared memory")
        return "shm"
    return wanted


def _store(plan: LinkPlan, epoch: int, folder: RunFolder | None, device: str) -> Store:
    match plan.transport:
        case "shm":
            if folder is None:
                raise TransportMissing(f"link {plan.name}: shm needs the process's folder in shared memory")
            return _in_shared_memory(plan, epoch, folder)
        case "inline":
            return InlineSlots(plan.slots, plan.coding)
        case "cuda-ipc":
            return cuda_ipc.slots_on_card(plan.name, plan.slots, device)
        case "local":
            raise TransportMissing(f"link {plan.name} is planned inside a process: its ends share a table (open_local)")


def _access(plan: LinkPlan, device: str) -> Access:
    match plan.transport:
        case "shm":
            return SharedAccess(
                "shm", plan.slots, lambda welcome: SharedTable.open(welcome.memory, welcome.slots, welcome.slot_bytes)
            )
        case "inline":
            return InlineAccess(plan.slots)
        case "cuda-ipc":
            return cuda_ipc.access_on_card(plan.slots, device)
        case "local":
            raise TransportMissing(f"link {plan.name} is planned inside a process: its ends share a table (open_local)")


def _in_shared_memory(plan: LinkPlan, epoch: int, folder: RunFolder) -> SharedSlots:
    stem = f"{re.sub('[^A-Za-z0-9_]+', '_', plan.name)[:60]}.{epoch}"

    def make(number: int, nbytes: int) -> tuple[Table, Welcome]:
        path, slot_bytes = folder.path / f"{stem}.{number}", slot_bytes_for(nbytes)
        table = SharedTable.create(path, plan.slots, slot_bytes)
        return table, Welcome(plan.slots, number, slot_bytes, f"{folder.path.name}/{path.name}")

    return SharedSlots("shm", plan.slots, make)
