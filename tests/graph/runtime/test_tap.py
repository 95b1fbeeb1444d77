"""Law: a tap sees every frame of its kind of stage, and changes nothing."""

import numpy as np
import pytest
from support.in_process import shown_by

from warpfuse.graph.plan.config import validate
from warpfuse.graph.runtime.context import prepare
from warpfuse.stages.sources import open_source


def pictures(bundle, taps):
    config = validate({"source": "pattern:64x48,frames=4", "sinks": ["here"], "bundle": str(bundle), "size": "64x48"})
    context = prepare(config, (64, 48), say=lambda line: None)
    return shown_by(context, lambda: open_source(config.source, size=context.size), taps=taps)


def test_a_tap_sees_the_flow_of_every_frame_and_the_pictures_stay_the_same(exact_bundle):
    seen = []
    sources = []
    tapped = pictures(exact_bundle, {"flow": seen.append, "source": sources.append})
    alone = pictures(exact_bundle, {})
    assert [frame.stamp.seq for frame in seen] == [0, 1, 2, 3]
    assert seen[0].flow.shape == (1, 2, 48, 64)
    assert [frame.stamp.seq for frame in sources] == [0, 1, 2, 3] and sources[0].rgb.shape == (48, 64, 3)
    for one, other in zip(tapped, alone, strict=True):
        assert np.array_equal(one, other)


def test_a_tap_that_fails_is_the_failure_of_its_stage(exact_bundle):
    def broken(frame):
        raise ValueError("no room")

    with pytest.raises(Exception, match="stage flow: ValueError: no room"):
        pictures(exact_bundle, {"flow": broken})
