"""Runs in the guest: a real Video4Linux camera is listed, read, unplugged and plugged in again."""

import json
import sys
import types
from pathlib import Path

# No source needs torch, and to load it takes minutes in an emulated machine; modules on the way name its types.
torch = types.ModuleType("torch")
torch.Tensor, torch.cuda = object, types.SimpleNamespace(Event=object)
sys.modules["torch"] = torch

from warpfuse.doctor import cameras  # noqa: E402
from warpfuse.stages.errors import SourceError  # noqa: E402
from warpfuse.stages.sources import open_source, v4l2  # noqa: E402
from warpfuse.stages.sources.connection import Patience  # noqa: E402
from warpfuse.stages.sources.faults import Broken  # noqa: E402
from warpfuse.stages.sources.v4l2 import Mode  # noqa: E402
from warpfuse.stages.sources.v4l2_capture import CaptureSession  # noqa: E402

PATIENT = Patience(first=20, stall=1, silence=10, least=0.2, most=0.5, total=60)


def told(**facts):
    print("fact " + json.dumps(facts), flush=True)


def bars(frame):
    """Colours of the eight bars, from the lower part, which no text covers."""
    height, width, _ = frame.rgb.shape
    rows = slice(height * 7 // 10, height * 9 // 10)
    return [frame.rgb[rows, (2 * k + 1) * width // 16].mean(0).round().tolist() for k in range(8)]


(camera,) = cameras.cameras()
listed = cameras.to_dict([camera])[0]
told(card=listed["card"], driver=listed["driver"], usual=listed["usual"], modes=len(listed["modes"]))

for form in ("yuyv", "nv12", "rgb3"):
    source = open_source(f"camera:0,1280x720@10,{form}", frames=2, patience=PATIENT)
    frames = [source.read() for _ in range(3)]
    source.close()
    info = source.info
    told(form=form, size=[info.width, info.height], fps=str(info.fps), live=info.live, bars=bars(frames[1]),
         ended=frames[2] is None, later=frames[1].stamp.pts_ns > frames[0].stamp.pts_ns)  # fmt: skip

try:
    open_source("camera:0,123x45")
except SourceError as error:
    told(refused=str(error))

link = Path("/dev/v4l/by-id/usb-vivid-video-index0")  # udev's work: there is none in here
link.parent.mkdir(parents=True)
link.symlink_to("/dev/video0")
for address in (f"{link},320x180@30,yuyv", "camera:VIV,320x180@30,yuyv"):
    source = open_source(address, frames=1, patience=PATIENT)
    told(**{address.partition(",")[0]: list(source.read().rgb.shape)})
    source.close()
told(links=[str(found) for found in v4l2.links(Path("/dev/video0"))])

(yuyv,) = [m for m in camera.modes if str(m) == "320x180@30,yuyv"]
session = CaptureSession(Path("/dev/video0"), yuyv, 5.0)
busy = None
try:
    CaptureSession(Path("/dev/video0"), Mode("YUYV", 640, 360, yuyv.fps), 5.0).close()
except Broken as error:
    busy = str(error)
session.close()
told(busy=busy, again=[str(d.path) for d in v4l2.devices()])

source = open_source("camera:0,320x180@30,yuyv", size=(160, 90), patience=PATIENT)
source.read()
driver = Path("/sys/bus/platform/drivers/vivid")
(device,) = [link.name for link in driver.glob("vivid*") if link.is_symlink()]
(driver / "unbind").write_text(device)  # what pulling the plug is to a driver
while not (held := source.read()).stamp.stale:
    pass
told(unplugged=source.report()["last_fault"], held=held.stamp.stale)
(driver / "bind").write_text(device)
while (frame := source.read()).stamp.stale:
    pass
told(back=frame.stamp.discontinuity, shape=list(frame.rgb.shape), reconnects=source.report()["reconnects"],
     news=source.news())  # fmt: skip
source.close()
