"""Findings of the doctor, and running a probe that may fail."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

_NO_MARKS = str.maketrans({"\x1b": "", "\n": " ", "\r": " "})


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination.

    found   the machine has it, and it can be used
    detail  version, path, or the reason why not
    remedy  the command that installs it; empty if it was found, or needs other hardware
    needed  no graph runs without it
    """

    group: str
    name: str
    found: bool
    detail: str
    remedy: str = ""
    needed: bool = False


Probe = Callable[[], Iterator[Finding]]


def guarded(group: str, name: str, probe: Probe, remedy: str = "") -> list[Finding]:
    """The findings of a probe. If it fails, the last one has the reason and `remedy`."""
    findings: list[Finding] = []
    try:
        for finding in probe():
            findings.append(finding)
    except Exception as error:  # noqa: BLE001  (a failing probe is a finding)
        reason = f"cannot be examined: {type(error).__name__}: {error}".translate(_NO_MARKS)
        findings.append(Finding(group, name, False, reason, remedy, needed=bool(remedy)))
    return findings
