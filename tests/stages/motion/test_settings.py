"""Settings of the motion stages as a configuration gives them."""

import pytest
from pydantic import ValidationError

from warpfuse.stages.motion.settings import FlowSettings
from warpfuse.stages.settings import RenamedKey


def test_a_key_under_its_old_name_is_taken_with_a_warning():
    with pytest.warns(RenamedKey, match="the key way_back is called backward_flow now"):
        settings = FlowSettings(way_back="always")
    assert settings == FlowSettings(backward_flow="always") != FlowSettings()
    assert "way_back" not in settings.model_dump()


def test_a_key_under_both_names_is_refused():
    with pytest.raises(ValidationError, match="way_back"):
        FlowSettings(way_back="always", backward_flow="doubtful")
