"""Pictures of motion: the flow as colours, and its trust as red over a picture."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from warpfuse.engine.cuda_streams import new_stream, on, reads, wrote
from warpfuse.engine.device import Event
from warpfuse.stages.frame import Frame, Motion

Rgb = npt.NDArray[np.uint8]

_LEAST_PX = 2.0  # motion that is full colour at least: noise of a still picture stays pale
_FLOW_SHARE, _DOUBT_SHARE = 0.7, 0.65
_DOUBT = np.array([236, 72, 60], np.float32)


@dataclass(frozen=True, slots=True)
class MotionView:
    """Flow and trust of a frame as their stage gave them, kept by reference and read only when somebody looks."""

    frame: Motion
    ready: Event | None

    @classmethod
    def of(cls, frame: Frame) -> "MotionView | None":
        """Keep the motion of a frame. Called in the thread of the stage. None for a held frame, which has no motion."""
        if not isinstance(frame, Motion):
            return None
        return cls(frame, wrote(frame.flow.device))

    def fields(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """flow_cur_to_prev [h, w, 2] px and trust [h, w] in [0, 1], on the host. Blocks the calling thread alone."""
        flow, trust = self.frame.flow, self.frame.trust
        stream = new_stream(str(flow.device))
        with on(stream):
            reads((flow, trust), self.ready, stream)
            return flow[0].permute(1, 2, 0).cpu().numpy(), trust[0, 0].cpu().numpy()


def flow_over(rgb: Rgb, flow: npt.NDArray[np.float32]) -> Rgb:
    """Flow as colours: hue is direction, saturation is speed, white is no motion. flow [h', w', 2] is resized."""
    # cur_to_prev points to where things were; shown is where they go
    angle, speed = np.arctan2(-flow[..., 1], -flow[..., 0]), np.hypot(flow[..., 0], flow[..., 1])
    scale = max(_LEAST_PX, float(np.percentile(speed[::4, ::4], 98)))
    hsv = np.empty((*speed.shape, 3), np.float32)
    hsv[..., 0] = np.degrees(angle) % 360
    hsv[..., 1] = np.minimum(speed / scale, 1)
    hsv[..., 2] = 1
    colours = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255, np.float32)
    return _mixed(rgb, _fitted(colours, rgb), np.float32(_FLOW_SHARE))


def doubt_over(rgb: Rgb, trust: npt.NDArray[np.float32]) -> Rgb:
    """The picture, red where trust [h', w'] is 0 and unchanged where it is 1."""
    share = (1 - np.clip(_fitted(trust, rgb), 0, 1)) * np.float32(_DOUBT_SHARE)
    return _mixed(rgb, _DOUBT, share[..., None])


def _fitted(plane: npt.NDArray[np.float32], rgb: Rgb) -> npt.NDArray[np.float32]:
    size = rgb.shape[1], rgb.shape[0]
    if plane.shape[:2] == rgb.shape[:2]:
        return plane
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR), np.float32)


def _mixed(rgb: Rgb, colour: npt.NDArray[np.float32], share: "npt.NDArray[np.float32] | np.float32") -> Rgb:
    return np.asarray(rgb + (colour - rgb) * share + 0.5, np.float32).clip(0, 255).astype(np.uint8)
