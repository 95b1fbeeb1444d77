"""The real OBS Studio shows and records what is published: SRT into a Media Source, without a server between."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

COLOURS = [(200, 40, 40), (40, 180, 60), (50, 60, 200), (220, 220, 60), (128, 128, 128), (240, 240, 240)]
_ALONE = ["unshare", "--net", "--map-root-user", "--user"]  # obs-websocket listens on every address


@pytest.mark.timeout(180)
def test_obs_shows_and_records_what_was_sent(tmp_path: Path) -> None:
    missing = [name for name in ("obs", "Xvfb", "ffmpeg", "unshare", "ip") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} absent: apt install obs-studio obs-plugins xvfb xauth ffmpeg iproute2")
    if find_spec("obsws_python") is None:
        pytest.skip("obsws-python is absent: pip install obsws-python")
    if subprocess.run([*_ALONE, "ip", "link", "set", "lo", "up"], capture_output=True).returncode:
        pytest.skip("no network namespaces here")
    watch = Path(__file__).with_name("watch.py")
    command = f"ip link set lo up && exec timeout -k 5 150 {sys.executable} {watch} {tmp_path}"
    done = subprocess.run([*_ALONE, "sh", "-c", command], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["shot"] is not None
    np.testing.assert_allclose(seen["shot_colours"], COLOURS, atol=6)
    np.testing.assert_allclose(seen["recorded_colours"], COLOURS, atol=8)  # encoded twice
    numbers = seen["numbers"]
    assert len(numbers) >= 120
    assert None not in numbers
    assert numbers == sorted(numbers)
    # Two clocks at 30 a second: some pictures are shown twice and some left out, but by far most are there.
    assert len(set(numbers)) >= 0.8 * len(numbers)
