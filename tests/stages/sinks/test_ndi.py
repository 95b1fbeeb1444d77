"""NDI for real: its own library sends over loopback, and receives what was sent."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("cyndilib", reason="pip install 'warpfuse[ndi]': it brings NDI's library")

LOOP = """
import json, sys, threading, time
from fractions import Fraction
import numpy as np
from warpfuse.doctor import burnt_code
from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.sinks import open_sink
from warpfuse.stages.sources import open_source
from warpfuse.stages.stage import VideoInfo

SIZE, ended = (328, 96), threading.Event()
name = sys.argv[1]
sink = open_sink(f"ndi:{name}", VideoInfo(*SIZE, Fraction(25), Fraction(1, 25), live=True), SIZE)

def send():
    number = 0
    while not ended.wait(0.04):
        rgb = np.full((SIZE[1], SIZE[0], 3), (200, 40, 90), np.uint8)
        rgb[:, SIZE[0] // 2:] = (30, 160, 220)
        burnt_code.burn(rgb, number)
        sink.write(RawFrame(Stamp(number, number * 40_000_000), rgb))
        number += 1

sender = threading.Thread(target=send)
sender.start()
source = open_source(f"ndi:{name}")
seen = []
while len(seen) < 8:
    frame = source.read()
    if not frame.stamp.stale:
        colours = [frame.rgb[60:80, left:left + 60].mean((0, 1)).tolist() for left in (40, 220)]
        seen.append([burnt_code.read(frame.rgb), *colours])
info = source.info
source.close()
ended.set()
sender.join()
sink.close(True)
sink.close(True)
size = [info.width, info.height]
print(json.dumps({"seen": seen, "size": size, "fps": float(info.fps), "live": info.live, "notes": sink.notes}))
"""

ABSENT = """
from warpfuse.stages.errors import SourceLost
from warpfuse.stages.sources import open_source
from warpfuse.stages.sources.connection import Patience
try:
    open_source("ndi:nobody at all", patience=Patience(first=1, silence=0.5, total=1))
except SourceLost as lost:
    print(lost)
"""


@pytest.fixture
def loopback(tmp_path):
    """loopback(code, *arguments) -> what a process prints whose NDI looks for senders on this machine."""
    (tmp_path / "ndi-config.v1.json").write_text(json.dumps({"ndi": {"networks": {"ips": "127.0.0.1"}}}))

    def run(code, *arguments):
        environment = {**os.environ, "NDI_CONFIG_DIR": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()[-1]

    return run


def test_pictures_that_are_sent_are_received_in_order_and_in_their_colours(loopback):
    """NDI's codec takes up to 9 levels of a small picture. BT.601 read as BT.709 takes 12 of the red of the right half,
    and RGB read as BGR more than 100."""
    told = json.loads(loopback(LOOP, f"wf {os.getpid()}"))
    numbers = [number for number, *_ in told["seen"]]
    assert None not in numbers and numbers == sorted(set(numbers))
    for _, left, right in told["seen"]:
        assert left == pytest.approx([200, 40, 90], abs=10) and right == pytest.approx([30, 160, 220], abs=10)
    assert (told["size"], told["fps"], told["live"]) == ([328, 96], 25.0, True)
    assert len(told["notes"]) == 1 and f"(wf {os.getpid()})" in told["notes"][0]


def test_a_sender_that_is_not_there_is_told_in_one_line(loopback):
    assert "no sender of this name is announced" in loopback(ABSENT)
