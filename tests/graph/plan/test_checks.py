"""Law: what can be found wrong early is found, in any of the streams; nothing is connected to for it."""

import pytest

from warpfuse.engine.errors import BadInput, BundleError
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.checks import check_early
from warpfuse.graph.plan.config import validate
from warpfuse.graph.plan.streams import read_streams
from warpfuse.stages.errors import AttentionError, DeepCacheError, LoraError, SinkError, SourceError, StyleError

RIGHT = {"source": "pattern:96x64@25,frames=3", "sinks": ["null:"], "prompt": "ink"}
WRONG = {
    "no source": ({"source": ""}, ConfigError),
    "no sink": ({"sinks": []}, ConfigError),
    "a source that is not there": ({"source": "nothing.mp4"}, SourceError),
    "a source of no known kind": ({"source": "pigeon:x"}, SourceError),
    "a sink of no known kind": ({"sinks": ["out.xyz"]}, SinkError),
    "no such bundle": ({"bundle": "nothing"}, BundleError),
    "no such style": ({"prompt": "castle"}, StyleError),
    "no such style to pull away from": (
        {"negative": "castle", "stages": {"predict": {"guidance": "full", "guidance_scale": 2}}},
        StyleError,
    ),
    "no such LoRA": ({"loras": {"ink": 1.0}}, LoraError),
    "attention the bundle has not": ({"stages": {"predict": {"attention": "rerender"}}}, AttentionError),
    "a cache of a UNet that is not split": ({"stages": {"predict": {"cache_deep": 2}}}, DeepCacheError),
    "a size the networks do not take": ({"size": [17, 17]}, ConfigError),
}


def test_what_is_right_passes():
    check_early(validate(RIGHT))
    check_early(validate({**RIGHT, "sinks": []}), watched=True)
    check_early(read_streams({"streams": {"a": RIGHT, "b": {**RIGHT, "prompt": "comic"}}}))


@pytest.mark.parametrize("keys, error", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_told_by_its_own_error(keys, error):
    with pytest.raises(error):
        check_early(validate({**RIGHT, **keys}))


def test_a_mistake_in_one_of_several_streams_is_told_under_its_name():
    with pytest.raises(BadInput, match="stream yard: no style called 'castle'"):
        check_early(read_streams({"streams": {"desk": RIGHT, "yard": {**RIGHT, "prompt": "castle"}}}))


@pytest.mark.parametrize("source", ["rtsp://127.0.0.1:9/none", "http://127.0.0.1:9/none.mp4", "camera:99"])
def test_connections_and_devices_are_left_alone(source):
    check_early(validate({**RIGHT, "source": source}))
