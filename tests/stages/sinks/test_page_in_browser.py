"""The page in a real browser: Chromium draws what was sent. OBS's Browser source is a Chromium too."""

import base64
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import cv2
import numpy as np
import pytest

from warpfuse.doctor import burnt_code
from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.sinks import open_sink
from warpfuse.stages.stage import VideoInfo

SIZE, FPS = (640, 360), 30
COLOUR = (200, 40, 90)


class Tab:
    """A tab of Chromium, over its DevTools protocol."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._id = socket, 0

    def do(self, method: str, **parameters: Any) -> Any:
        self._id += 1
        self._socket.send(json.dumps({"id": self._id, "method": method, "params": parameters}))
        while True:
            said = json.loads(self._socket.recv())
            if said.get("id") == self._id:
                return said["result"]

    def shot(self) -> Any:
        data = np.frombuffer(base64.b64decode(self.do("Page.captureScreenshot")["data"]), np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert picture is not None
        return picture[:, :, ::-1]


@contextmanager
def chromium(url: str, folder: Path) -> Iterator[Tab]:
    program = shutil.which("chromium")
    websocket = pytest.importorskip("websocket", reason="websocket-client is absent: pip install obsws-python")
    if program is None:
        pytest.skip("Chromium is absent: apt install chromium")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run"]
    command = [program, *flags, f"--user-data-dir={folder}", url]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert browser.stderr is not None
        port = next(line.split(":")[2].split("/")[0] for line in browser.stderr if "DevTools listening" in line)
        with urlopen(f"http://127.0.0.1:{port}/json") as answer:
            page = next(page for page in json.load(answer) if page["type"] == "page")
        socket = websocket.create_connection(page["webSocketDebuggerUrl"], suppress_origin=True, timeout=30)
        try:
            tab = Tab(socket)
            shape = {"width": SIZE[0], "height": SIZE[1], "deviceScaleFactor": 1, "mobile": False}
            tab.do("Emulation.setDeviceMetricsOverride", **shape)
            yield tab
        finally:
            socket.close()
    finally:
        browser.terminate()
        browser.wait(20)
        assert browser.stderr is not None
        browser.stderr.close()


@pytest.mark.timeout(120)
def test_chromium_draws_what_was_sent(tmp_path: Path) -> None:
    sink: Any = open_sink("page:0", VideoInfo(*SIZE, Fraction(FPS), Fraction(1, FPS)), SIZE)
    stopped = threading.Event()

    def send() -> None:
        number = 0
        while not stopped.is_set():
            rgb = np.full((SIZE[1], SIZE[0], 3), COLOUR, np.uint8)
            burnt_code.burn(rgb, number)
            sink.write(RawFrame(Stamp(number, number * 10**9 // FPS), rgb))  # it keeps the time
            number += 1

    sending = threading.Thread(target=send)
    sending.start()
    try:
        with chromium(sink.server.address, tmp_path) as tab:
            seen: list[int] = []
            deadline = time.monotonic() + 60
            while len(set(seen)) < 3 and time.monotonic() < deadline:
                rgb = tab.shot()
                if (number := burnt_code.read(rgb)) is not None:
                    seen.append(number)
            assert len(set(seen)) >= 3
            assert seen == sorted(seen)
            np.testing.assert_allclose(rgb[200:340].reshape(-1, 3).mean(0), COLOUR, atol=3)
    finally:
        stopped.set()
        sending.join()
        sink.close(True)
