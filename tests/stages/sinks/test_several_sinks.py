"""A graph with several sinks: what happens to one is nothing to the others."""

from pathlib import Path

import av
import pytest
from support.peers import free_port, peer

from warpfuse.graph.plan.config import validate
from warpfuse.graph.run import run
from warpfuse.stages.errors import SinkLost

FRAMES = 90


def frames_in(path: Path) -> int:
    with av.open(str(path)) as opened:
        return sum(1 for _ in opened.decode(video=0))


def keys(exact_bundle: Path, tmp_path: Path, *sinks: str) -> dict[str, object]:
    source = f"pattern:128x96@30,frames={FRAMES}"
    return {"source": source, "sinks": [str(tmp_path / "out.mp4"), *sinks], "bundle": str(exact_bundle)}


def test_a_peer_that_freezes_in_the_middle_costs_the_file_nothing(exact_bundle: Path, tmp_path: Path) -> None:
    with peer("rtsp", tmp_path) as server:
        frozen: list[int] = []

        def freeze(written: int, _: int | None) -> None:
            if written > 45 and not frozen:
                server.freeze()
                frozen.append(written)

        stats = run(validate(keys(exact_bundle, tmp_path, f"{server.url}#stall=0.5", "null:")), progress=freeze)
    assert frozen
    assert frozen[0] < FRAMES
    assert stats.frames.out == FRAMES
    assert frames_in(tmp_path / "out.mp4") == FRAMES


def test_a_peer_that_never_was_ends_the_run_but_the_file_is_whole(exact_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(SinkLost, match="no connection was made"):
        run(validate(keys(exact_bundle, tmp_path, f"rtsp://127.0.0.1:{free_port()}/live")))
    assert frames_in(tmp_path / "out.mp4") == FRAMES
