"""OBS Studio under a virtual display, driven over obs-websocket. For a network namespace: it listens everywhere."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SIZE, FPS = (640, 360), 30
_PORT, _PASSWORD = 4455, "testtesttest"

_GLOBAL = f"""[General]
FirstRun=true
EnableAutoUpdates=false
LastVersion=486539266
[OBSWebSocket]
FirstLoad=false
ServerEnabled=true
ServerPort={_PORT}
AuthRequired=true
ServerPassword={_PASSWORD}
AlertsEnabled=false
[Basic]
Profile=Untitled
ProfileDir=Untitled
SceneCollection=Untitled
SceneCollectionFile=Untitled
"""
_PROFILE = f"""[General]
Name=Untitled
[Video]
BaseCX={SIZE[0]}
BaseCY={SIZE[1]}
OutputCX={SIZE[0]}
OutputCY={SIZE[1]}
FPSCommon={FPS}
[SimpleOutput]
FilePath=FOLDER
RecFormat=mkv
VBitrate=6000
StreamEncoder=x264
RecQuality=Stream
"""


@contextmanager
def studio(home: Path) -> Iterator[Any]:
    """A client of a running OBS with the empty scene 'Scene'; recordings go to `home`/rec."""
    import obsws_python

    profile = home / ".config" / "obs-studio" / "basic" / "profiles" / "Untitled"
    profile.mkdir(parents=True)
    (home / "rec").mkdir()
    (home / "run").mkdir(mode=0o700)
    (home / ".config" / "obs-studio" / "global.ini").write_text(_GLOBAL)
    (profile / "basic.ini").write_text(_PROFILE.replace("FOLDER", str(home / "rec")))
    display = subprocess.Popen(
        ["Xvfb", "-displayfd", "1", "-screen", "0", "1280x800x24", "-nolisten", "tcp"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert display.stdout is not None
    number = display.stdout.readline().strip()
    environment = {
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "DISPLAY": f":{number}",
        "LIBGL_ALWAYS_SOFTWARE": "1",
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
    }
    with (home / "obs.log").open("w") as log:
        obs = subprocess.Popen(["obs", "--multi"], env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=home)
    try:
        yield _client(obsws_python, obs)
    finally:
        for process in (obs, display):
            process.kill()
            process.wait()
        display.stdout.close()


def _client(obsws_python: Any, obs: subprocess.Popen[bytes]) -> Any:
    for _ in range(60):
        assert obs.poll() is None, "OBS ended"
        try:
            client = obsws_python.ReqClient(host="127.0.0.1", port=_PORT, password=_PASSWORD, timeout=20)
            client.get_scene_list()
        except Exception:  # noqa: BLE001  (it answers before it is ready, with errors of several kinds)
            time.sleep(0.5)  # there is no event to wait for
            continue
        return client
    raise AssertionError("OBS did not answer within 30 s")
