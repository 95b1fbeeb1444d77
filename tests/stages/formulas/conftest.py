"""The arithmetic of stages in both of its forms."""

import pytest

from warpfuse.stages import cpu, formulas


@pytest.fixture(params=[formulas, cpu], ids=["formulas", "cpu"])
def ops(request):
    return request.param
