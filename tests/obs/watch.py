"""Run in a network namespace: OBS listens for SRT, our sink publishes, and what OBS shows and records is looked at.

The last line is JSON. watch.py FOLDER
"""

import base64
import json
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

sys.path += [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
from studio import FPS, SIZE, studio

from warpfuse.doctor import burnt_code
from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.sinks import open_sink
from warpfuse.stages.sources.display import Display
from warpfuse.stages.stage import VideoInfo

COLOURS = [(200, 40, 40), (40, 180, 60), (50, 60, 200), (220, 220, 60), (128, 128, 128), (240, 240, 240)]
URL = "srt://127.0.0.1:9000"


def picture(number: int) -> RawFrame:
    """Six flat colours below a burnt-in number."""
    rgb = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    rgb[:] = np.repeat(np.array(COLOURS, np.uint8), -(-SIZE[0] // 6), 0)[: SIZE[0]]
    burnt_code.burn(rgb, number)
    return RawFrame(Stamp(number, number * 10**9 // FPS), rgb)


def centres(rgb: Any) -> list[list[float]]:
    """Mean colour of each field."""
    return np.round(rgb[200:340, 53::107].mean(0)[:6], 1).tolist()


class Publishing(threading.Thread):
    """Frames in real time until told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.stopped = threading.Event()
        self.number = 0
        self.sink: Any = open_sink(URL, VideoInfo(*SIZE, Fraction(FPS), Fraction(1, FPS)), SIZE)

    def run(self) -> None:
        """The thread; the sink keeps the time."""
        while not self.stopped.is_set():
            self.sink.write(picture(self.number))
            self.number += 1


def shot(obs: Any) -> Any:
    """What the scene looks like now, RGB."""
    said = obs.get_source_screenshot("Scene", "png", *SIZE, -1).image_data
    data = np.frombuffer(base64.b64decode(said.split(",")[1]), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1]


def main(folder: str) -> None:
    """See, record, report."""
    with studio(Path(folder)) as obs:
        listening = {"is_local_file": False, "input": f"{URL}?mode=listener", "input_format": "mpegts"}
        obs.create_input("Scene", "warpfuse", "ffmpeg_source", {**listening, "buffering_mb": 0}, True)
        publishing = Publishing()
        publishing.start()
        try:
            begun = time.monotonic()
            seen = None
            while seen is None and time.monotonic() - begun < 40:
                rgb = shot(obs)
                seen = burnt_code.read(rgb)
            lag = publishing.number - (seen or 0)
            obs.start_record()
            time.sleep(5)  # what is recorded is time
            recorded = obs.stop_record().output_path
            kinds = obs.get_input_kind_list(True).input_kinds
        finally:
            publishing.stopped.set()
            publishing.join()
            publishing.sink.close(True)
        time.sleep(1)  # OBS finishes its file after it has said that it stopped
    numbers = []
    with av.open(recorded) as opened:
        display = None
        for frame in opened.decode(opened.streams.video[0]):
            display = display or Display(frame, None, None)
            last = display(frame)
            numbers.append(burnt_code.read(last))
    report = {"shot": seen, "lag_frames": lag, "shot_colours": centres(rgb), "recorded_colours": centres(last)}
    print(json.dumps({**report, "numbers": numbers, "browser_source": "browser_source" in kinds}))


if __name__ == "__main__":
    main(sys.argv[1])
