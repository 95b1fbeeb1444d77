"""Run in the guest: three runs of the virtual camera in each of two devices, all read by another program's means."""

import json
import subprocess
import sys
import threading
import types
from fractions import Fraction

import av
import numpy as np

# No sink needs torch, and to load it takes minutes in an emulated machine; modules on the way name its types.
torch = types.ModuleType("torch")
torch.Tensor, torch.cuda = object, types.SimpleNamespace(Event=object)
sys.modules["torch"] = torch

from warpfuse.stages.frame import RawFrame, Stamp  # noqa: E402
from warpfuse.stages.sinks import check, open_sink  # noqa: E402
from warpfuse.stages.sinks.v4l2_output import capability  # noqa: E402
from warpfuse.stages.stage import VideoInfo  # noqa: E402

SIZE = (320, 240)
FPS = 10
COLOUR = (200, 40, 90)
INFO = VideoInfo(*SIZE, Fraction(FPS), Fraction(1, FPS), live=True)


def one_run(device: str, pixel_format: str, number: int) -> dict[str, object]:
    """Write one frame, then none; read the device meanwhile."""
    url = f"virtualcam:{device},fps={FPS},format={pixel_format}"
    check(url)
    sink = open_sink(url, INFO, SIZE)
    try:
        rgb = np.full((SIZE[1], SIZE[0], 3), COLOUR, np.uint8)
        sink.write(RawFrame(Stamp(number, 0), rgb))
        with av.open(device, format="v4l2") as camera:
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


def seen_of(device: str) -> dict[str, object]:
    """What three runs in a row were seen as."""
    runs = [one_run(device, pixel_format, number) for number, pixel_format in enumerate(("nv12", "yuyv", "nv12"))]
    after = capability(device)
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("wf:")]
    return {"runs": runs, "output": after.output, "card": after.card, "left": left}


def main() -> None:
    """Print what was seen, by the value of exclusive_caps, as one line of JSON."""
    two = "devices=2 video_nr=10,11 card_label=VCam0,VCam1 exclusive_caps=0,1 max_buffers=4"
    subprocess.run(["/sbin/insmod", "/guest-modules/v4l2loopback.ko", *two.split()], check=True)
    print("SEEN", json.dumps({0: seen_of("/dev/video10"), 1: seen_of("/dev/video11")}))


if __name__ == "__main__":
    sys.exit(main())
