"""`warpfuse doctor`: findings on this machine as a table or JSON, its cameras, and a trial of a run."""

import json
from typing import Annotated, Any

import typer
from rich.console import Console

from warpfuse.configuring import configure
from warpfuse.engine.errors import BadInput
from warpfuse.flags import asked, takes_a_graph
from warpfuse.shipped_clip import CLIP
from warpfuse.terminal import say, stopped_by_signals

# Note: imports inside the functions, as in cli.py.

NOT_KEPT_UP = 1
"""Exit code where the machine is too slow."""


@takes_a_graph
def doctor(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Findings as JSON.")] = False,
    cameras: Annotated[bool, typer.Option("--cameras", help="List cameras and their formats.")] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Run source and bundle for five seconds: does this machine keep up?")
    ] = False,
    **flags: Any,
) -> int:
    """What this machine has, what it lacks, and the command that fixes it."""
    if deep:
        return _try_out(flags, as_json)
    if given := [name for name, value in flags.items() if value not in (None, [])]:
        raise BadInput(f"{given[0]}: the flags and names of a run are for `warpfuse doctor --deep`. Add --deep")
    if cameras:
        from warpfuse.doctor import cameras as listing

        found = listing.cameras()
        if as_json:
            print(json.dumps({"cameras": listing.to_dict(found)}, indent=1))
        else:
            Console().print(listing.table(found))
        return 0
    from warpfuse.doctor.examination import examine, table, to_json

    findings = examine()
    if as_json:
        print(to_json(findings))
    else:
        Console().print(table(findings))
    return 0


def _try_out(flags: dict[str, Any], as_json: bool) -> int:
    """The deep examination; the exit code is 1 where this machine does not keep up."""
    from warpfuse.graph.plan.checks import check_early

    graph, keys, settings = asked(flags)
    config = configure(graph, keys, settings, {"source": str(CLIP), "loop": True, "sinks": ["null:"]})
    check_early(config)
    from warpfuse.doctor.trial import told, try_out

    with stopped_by_signals("ending the trial; once more to stop at once") as stop:
        found = try_out(config, say=say, stop=stop)
    if as_json:
        print(json.dumps({"deep": found.to_dict()}, indent=1))
    else:
        for line in told(found):
            print(line)
    return 0 if found.keeps_up else NOT_KEPT_UP
