"""The package on a simulated card (`tests/support/card`): nothing is read before it is written, or written over while
it is read, in whatever order streams and threads run.

Each place that asks for order is left out once, and must be missed.
"""

import contextlib
from collections import Counter

import pytest
from support.card import card, scenarios
from support.card.kernels import COMPILER
from support.card.sites import sites

PLACES = sites()

MUTATIONS = {
    scenarios.pictures_go_up: [
        "engine.cuda_streams:UploadRing.upload:record:1",
        "engine.cuda_streams:UploadRing.upload:synchronize:1",
    ],
    scenarios.pictures_come_down: [
        "engine.cuda_streams:DownloadRing.download:record:1",
        "engine.cuda_streams:Landing.wait:synchronize:1",
    ],
    scenarios.pictures_come_decoded: [
        "stages.card_decoder:CardDecoder.taken:record:1",
        "stages.transfer.upload:Upload._converted:record:1",
        "stages.transfer.upload:Upload._converted:wait_event:1",
        "stages.transfer.upload:Upload._converted:synchronize:1",
        "stages.transfer.upload:Upload.close:synchronize:1",
    ],
    scenarios.a_session_runs: [
        "engine.backends.onnxruntime:OnnxRuntimeEngine.__call__:record:1",
        "engine.backends.onnxruntime:OnnxRuntimeEngine.__call__:record:2",
        "engine.backends.onnxruntime:OnnxRuntimeEngine.__call__:wait_event:1",
        "engine.backends.onnxruntime:OnnxRuntimeEngine.__call__:wait_event:2",
        "engine.backends.onnxruntime:OnnxRuntimeEngine.close:synchronize:1",
    ],
    scenarios.a_graph_is_replayed: [
        "engine.replay:Replay.__init__:record:1",
        "engine.replay:Replay.__init__:wait_event:1",
        "engine.replay:Replay.__init__:synchronize:1",
    ],
    scenarios.a_plan_runs: ["engine.tensorrt_engine:TensorRtEngine.close:synchronize:1"],
    scenarios.a_plan_is_tried: [],
    scenarios.streams_share_a_network: [
        "graph.runtime.shared_engine:SharedEngine.run:record:1",
        "graph.runtime.shared_engine:SharedEngine.run:wait_event:1",
        "graph.runtime.shared_engine:SharedEngine.run:record_stream:1",
        "graph.runtime.shared_engine:SharedEngine._call:record:1",
        "graph.runtime.shared_engine:SharedEngine._call:wait_event:1",
        "graph.runtime.shared_engine:SharedEngine._next_group:synchronize:1",
    ],
    scenarios.a_prompt_is_encoded: ["stages.diffusion.prompts:TextPrompts._encode:synchronize:1"],
    scenarios.no_prompt_is_zeros: ["stages.diffusion.prompts:TextPrompts._nothing:synchronize:1"],
    scenarios.a_picture_is_a_prompt: ["stages.diffusion.image_tokens:ImageTokens.__call__:synchronize:1"],
    scenarios.masks_are_looked_at: ["web.pictures:Pictures.saw_mask:record:1"],
    scenarios.motion_is_looked_at: [
        "web.motion:MotionView.of:record:1",
        "web.motion:MotionView.fields:wait_event:1",
        "web.motion:MotionView.fields:record_stream:1",
    ],
    scenarios.maps_are_looked_at: [
        "web.pictures:Pictures.saw_map:record:1",
        "web.pictures:MapView.rgb:wait_event:1",
        "web.pictures:MapView.rgb:record_stream:1",
    ],
    scenarios.frames_cross_processes: [
        "graph.links.cuda_ipc:_Pool.write:record:1",
        "graph.links.cuda_ipc:_Pool.write:wait_event:1",
        "graph.links.cuda_ipc:_Pool.before:wait_event:1",
        "graph.links.cuda_ipc:_Pool.after:record:1",
        "graph.links.cuda_ipc:_Pool.close:synchronize:1",
    ],
    scenarios.a_graph_runs: [
        "graph.runtime.stage_runner:StageRunner._read:wait_event:1",
        "graph.runtime.stage_runner:StageRunner._read:record_stream:1",
        "graph.runtime.stage_runner:StageRunner._written:record:1",
    ],
    scenarios.a_graph_runs_on_plans: [],
    scenarios.a_graph_runs_in_parts: [],
    scenarios.a_faster_network_takes_over: [],
}

NO_ORDER = {
    "engine.cuda_streams:DeviceClock.begin:record:1": "times",
    "engine.cuda_streams:DeviceClock.end:record:1": "times",
    "benchmark.machine:_best_seconds:synchronize:1": "times",
    "benchmark.machine:_best_seconds:synchronize:2": "times",
    "benchmark.ways:_timed:synchronize:1": "times",
    "benchmark.ways:_timed:synchronize:2": "times",
    "benchmark.loop:PlainLoop.__init__:synchronize:1": "all its work is on one stream",
    "benchmark.loop:PlainLoop.__exit__:synchronize:1": "all its work is on one stream",
    "graph.runtime.worker:Worker.open:synchronize:1": "for stages of others; ours are opened on their lane's stream",
    "stages.loop:Loop.close:synchronize:1": "all its work is on one stream",
    "graph.runtime.shared_engine:SharedEngine._call:record_stream:1": "who asked waits for the answer anyway",
}

LEFT_OUT = [(scenario, place) for scenario, places in MUTATIONS.items() for place in places]


def name_of(one):
    return one if isinstance(one, str) else one.__name__


@pytest.mark.parametrize("scenario", MUTATIONS, ids=name_of)
def test_nothing_races(scenario, short_folder):
    with card() as sim:
        scenario(sim, short_folder)
    assert not sim.races, "\n".join(map(str, sim.races[:3]))


@pytest.mark.parametrize("scenario, place", LEFT_OUT, ids=name_of)
def test_what_orders_is_needed(scenario, place, short_folder):
    with card() as sim:
        sim.without.add(PLACES[place])
        with contextlib.suppress(AssertionError):  # what is read too early may be wrong as well
            scenario(sim, short_folder)
    assert sim.skipped, f"{place} is not reached by the scenario"
    assert sim.races, f"without {place} nothing is missed"


REPLAYED = [
    "graph.runtime.stage_runner:StageRunner._read:wait_event:1",
    "graph.runtime.stage_runner:StageRunner._written:record:1",
]
"""What orders the replayed loop: its inputs come from other streams, its picture goes to one."""


@pytest.mark.parametrize("place", REPLAYED)
def test_what_orders_the_replayed_loop_is_needed(place, short_folder):
    with card() as sim:
        sim.without.add(PLACES[place])
        with contextlib.suppress(AssertionError):
            scenarios.a_graph_runs_on_plans(sim, short_folder)
    assert sim.skipped and any("stages.loop" in race.first + race.second for race in sim.races)


def test_every_place_that_orders_is_left_out_once():
    listed = [place for _, place in LEFT_OUT] + [*NO_ORDER]
    # what is not copied is seen by the pictures: tests/graph/runtime/test_loop.py
    assert sorted(listed) == sorted(name for name, place in PLACES.items() if place.operation != "copy")


def test_the_loop_is_one_launch_with_a_copy_before_and_behind_it(short_folder):
    """And its pictures are those of the networks that cannot be captured."""
    with card() as sim:
        expected = scenarios.shown(short_folder)
        assert not sim.captured
        assert [one.tolist() for one in scenarios.shown(short_folder, backend="tensorrt")] == [
            one.tolist() for one in expected
        ]
    in_loop = Counter({name: count for (span, name), count in sim.kernels.items() if not span})
    assert in_loop["_foreach_copy_"] == 2 * 2, "two of five frames are replayed"
    assert not sim.races


def test_a_stream_batch_is_one_launch_for_its_rows_and_one_for_the_loop_behind_it(short_folder):
    keys = {"steps": 2, "stages": {"predict": {"stream": True}}, "source": "pattern:48x32@25,frames=9"}
    with card() as sim:
        expected = scenarios.shown(short_folder, **keys)
        assert not sim.captured
        got = scenarios.shown(short_folder, backend="tensorrt", **keys)
    assert [one.tolist() for one in got] == [one.tolist() for one in expected]
    launched = Counter({name: count for (span, name), count in sim.kernels.items() if not span})
    # the second frame of a form is the first that is replayed: five of nine by the sampler, six of eight by the loop
    assert launched["_foreach_copy_"] == 2 * (5 + 6)
    assert not sim.races, "\n".join(map(str, sim.races[:3]))


MOST_KERNELS = 25
"""Of a warm frame of the default graph: 17 of ours, 4 copies between host and card, 4 networks. It may only fall."""


@pytest.mark.skipif(COMPILER is None, reason="no C compiler: the simulated card compiles our kernels with one")
def test_a_frame_takes_few_kernels_no_pageable_copy_and_no_wait_but_for_its_own_copies(short_folder):
    """What a run of eight frames takes more than one of four."""
    kernels, waits = Counter(), Counter()
    for frames, sign in ((4, -1), (8, 1)):
        with card() as sim:
            scenarios.shown(short_folder, source=f"pattern:48x32@25,frames={frames}")
        for found, of in ((kernels, sim.kernels), (waits, Counter(sim.waits))):
            for name, count in of.items():
                found[name] += sign * count
    assert 0 < sum(kernels.values()) / 4 <= MOST_KERNELS
    copies = {name for (_, name), count in kernels.items() if " to " in name and count}
    assert copies == {"pinned to device", "device to pinned"}
    module = "warpfuse.engine.cuda_streams"
    assert {at for at, count in waits.items() if count} == {
        ("event", module, "UploadRing.upload"), ("event", module, "Landing.wait"),
    }  # fmt: skip
