"""The table of tiers refers to existing tests, and a test is found in its tier."""

from pathlib import Path

import pytest
from tiers import TIERS, tier_of

HERE = Path(__file__).parent
MEMBERS = [(tier, member) for tier, members in TIERS.items() for member in members]


@pytest.mark.parametrize("tier, member", MEMBERS)
def test_what_is_listed_exists_once(tier, member):
    place, _, name = member.partition("::")
    path = HERE / place
    assert path.exists() and (not name or f"def {name}(" in path.read_text())
    assert [other for other in MEMBERS if other[1] == member] == [(tier, member)]


def test_a_test_is_in_the_tier_of_its_file_or_folder():
    assert tier_of("obs/test_obs.py::test_x") == "device"
    assert tier_of("graph/processes/test_supervisor.py::test_x[a/b]") == "process"
    assert tier_of("graph/plan/test_planner.py::test_x") is None and tier_of("observatory/test_x.py::test_y") is None
