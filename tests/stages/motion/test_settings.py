"""Settings of the confidence mask."""

import pytest
import torch
from pydantic import ValidationError

from warpfuse.stages.formulas.confidence_mask import consistent
from warpfuse.stages.motion.settings import TrustSettings


def test_settings_refuse_what_they_do_not_know():
    for bad in ({"photometric": 0}, {"check": "other"}, {"dilate_px": -1}, {"threshold": 1}):
        with pytest.raises(ValidationError):
            TrustSettings(**bad)


def test_settings_for_a_smaller_flow_judge_it_alike():
    """Half the size: half the lengths, of what is a square a quarter; what is no length stays."""
    f, b = torch.randn(1, 2, 24, 32) * 6, torch.randn(1, 2, 24, 32) * 6
    for check, offset in (("squared", 0.125), ("norm", 0.25)):
        large = TrustSettings(check=check, offset=0.5)
        small = large.at(0.5)
        assert (small.offset, small.dilate_px, small.feather_px) == (offset, 1, 0) and small.slope == large.slope
        seen = consistent(f, -f + b / 6, check, large.slope, large.offset)
        assert torch.equal(consistent(f / 2, (-f + b / 6) / 2, check, small.slope, small.offset), seen)
        assert 0.05 < seen.mean() < 0.95
        assert not torch.equal(consistent(f / 2, (-f + b / 6) / 2, check, large.slope, large.offset), seen), "control"
    assert large.at(1) is large
