"""Examining this machine: what it has for running graphs, what it lacks, and the commands that install it."""

import json
from dataclasses import asdict

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from warpfuse.doctor.finding import Finding, guarded
from warpfuse.doctor.probes import PROBES

__all__ = ["Finding", "examine", "table", "to_json"]


def examine() -> list[Finding]:
    """Examine this machine. Never raises, opens no device or network connection, creates no CUDA context."""
    return [finding for group, name, probe, remedy in PROBES for finding in guarded(group, name, probe, remedy)]


def table(findings: list[Finding]) -> RenderableType:
    """A table of the findings by group, with remedies, and a last line on whether anything required is missing."""
    grid = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    group = ""
    for finding in findings:
        if finding.group != group:
            group = finding.group
            grid.add_row("", Text(group, "bold"), "")
        mark = ("✓", "green") if finding.found else ("✗", "red") if finding.needed else ("-", "yellow")
        detail = Text(finding.detail)
        if finding.remedy:
            detail.append(f"\n{finding.remedy}", "cyan")
        grid.add_row(Text(*mark), Text(finding.name), detail)
    lacking = [finding.name for finding in findings if finding.needed and not finding.found]
    verdict = Text(f"missing and needed: {', '.join(lacking)}", "red") if lacking else Text("ready to run", "green")
    return Group(grid, Text(), verdict)


def to_json(findings: list[Finding]) -> str:
    """One JSON object: `ready` (nothing needed is missing) and `findings`, a list of objects."""
    ready = all(finding.found for finding in findings if finding.needed)
    return json.dumps({"ready": ready, "findings": [asdict(finding) for finding in findings]}, indent=1)
