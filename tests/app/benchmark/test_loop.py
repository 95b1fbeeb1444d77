"""The plain loop does the graph's work: the same pictures, whatever is on its way in the sampler."""

import numpy as np
import pytest
import torch
from support.in_process import shown_by

from warpfuse.benchmark.loop import PlainLoop
from warpfuse.benchmark.ways import PicturesInMemory, pictures_of
from warpfuse.graph.plan.config import validate
from warpfuse.graph.runtime.context import prepare
from warpfuse.stages.frame import Picture, Stamp

SIZE = (64, 48)


def config(bundle, steps, stream, **keys):
    told = {"source": "pattern:64x48@25,frames=8", "sinks": ["null:"], "bundle": bundle, "size": "64x48"}
    return validate({**told, "steps": steps, "stages": {"predict": {"stream": stream}}, **keys})


def by_the_graph(told, pictures):
    context = prepare(told, SIZE, lambda line: None)
    return shown_by(context, lambda: PicturesInMemory(pictures, len(pictures)), rewind=False)


def by_the_loop(told, pictures):
    with PlainLoop(prepare(told, SIZE, lambda line: None)) as loop:
        return [out if out is None else out.rgb.copy() for out in map(loop.step, pictures)]


@pytest.mark.parametrize("steps, stream, late", [(1, False, 0), (2, False, 0), (3, True, 2)])
def test_the_loop_shows_what_the_graph_shows(exact_bundle, steps, stream, late):
    told = config(exact_bundle, steps, stream)
    pictures = pictures_of(told, SIZE)
    shown = by_the_loop(told, pictures)
    assert shown[:late] == [None] * late, "a stream batch fills"
    graph = by_the_graph(told, pictures)
    assert len(graph) == len(pictures) and all(map(np.array_equal, shown[late:], graph))
    other = by_the_loop(config(exact_bundle, steps, stream, fusion=0.2), pictures)
    assert not all(map(np.array_equal, other[late:], graph)), "the control: another run"


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_piles_up_on_the_way(exact_bundle, stream):
    """However often pictures on the device go through, which leave before `download`."""
    with PlainLoop(prepare(config(exact_bundle, 3, stream), SIZE, lambda line: None)) as loop:
        seen = []
        for seq in range(9):
            loop.step_on_device(Picture(Stamp(seq, seq), torch.rand(1, 3, 48, 64)))
            seen.append(sum(map(len, loop._links.values())))
        assert seen[3:] == [seen[3]] * 6 and len(loop.ms["decode"]) == (7 if stream else 9)
        assert loop.ms["upload"] == loop.ms["download"] == []
