"""One emulated virtual machine for all tests of this folder, since its start takes longer than most tests."""

import shlex
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
from machine import run_in_guest

VIVID = "n_devs=1 node_types=0x1 vid_cap_nr=0"
SCRIPTS = ("guest_camera.py", "guest_virtualcam.py")  # the first one expects to see one camera alone


@pytest.fixture(scope="session")
def guest(tmp_path_factory):
    """(exit code, output) of the guest's scripts, by name. If the machine does not start, all tests are skipped with
    the reason."""
    here = Path(__file__).parent
    runs = [f"{shlex.join([sys.executable, '-B', str(here / name)])}; echo script-rc {name} $?" for name in SCRIPTS]
    ended = run_in_guest(
        ["/bin/bash", "-c", "\n".join(runs)], tmp_path_factory.mktemp("vm"), {"vivid": VIVID, "v4l2loopback": None}
    )
    said, rest = {}, ended.output
    for name in SCRIPTS:
        mine, mark, rest = rest.partition(f"script-rc {name} ")
        assert mark, f"{name} did not come to its end:\n{mine[-3000:]}"
        said[name] = int(rest.split()[0]), mine
    return said
