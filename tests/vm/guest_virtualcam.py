"""Run in the guest: three runs of the virtual camera in one device, each read by another program's means."""

import json
import sys
import threading
from fractions import Fraction

import av
import numpy as np

from warpfuse.stages.frame import RawFrame, Stamp
from warpfuse.stages.sinks import check, open_sink
from warpfuse.stages.sinks.v4l2_output import capability
from warpfuse.stages.stage import VideoInfo

SIZE = (320, 240)
FPS = 10
COLOUR = (200, 40, 90)
INFO = VideoInfo(*SIZE, Fraction(FPS), Fraction(1, FPS), live=True)


def one_run(pixel_format: str, number: int) -> dict[str, object]:
    """Write one frame, then none; read the device meanwhile."""
    url = f"virtualcam:/dev/video10,fps={FPS},format={pixel_format}"
    check(url)
    sink = open_sink(url, INFO, SIZE)
    try:
        rgb = np.full((SIZE[1], SIZE[0], 3), COLOUR, np.uint8)
        sink.write(RawFrame(Stamp(number, 0), rgb))
        with av.open("/dev/video10", format="v4l2") as camera:
            stream = camera.streams.video[0]
            frames = []
            for frame in camera.decode(stream):
                frames.append([np.frombuffer(memoryview(plane), np.uint8)[:4].tolist() for plane in frame.planes])
                if len(frames) == 5:  # the sixth and later would be the same: the last picture is held
                    break
            seen = {"format": stream.codec_context.pix_fmt, "size": [stream.width, stream.height]}
    finally:
        sink.close(True)
    return {**seen, "planes": frames[-1], "notes": sink.notes}


def main() -> None:
    """Print what was seen as one line of JSON."""
    runs = [one_run(pixel_format, number) for number, pixel_format in enumerate(("nv12", "yuyv", "nv12"))]
    after = capability("/dev/video10")
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("wf:")]
    print("SEEN", json.dumps({"runs": runs, "output": after.output, "card": after.card, "left": left}))


if __name__ == "__main__":
    sys.exit(main())
