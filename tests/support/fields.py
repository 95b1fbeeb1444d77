"""Pictures and motion with known flow, synthetic and from files, shared by the tests of stages and networks."""

import cv2
import numpy as np
import torch

from warpfuse.stages.frame import Picture, Stamp


def texture(h, w, seed=0, octaves=(4, 8, 16, 32)):
    """Smooth noise of several scales, [1, 3, h, w] in [0, 1], in which DIS finds the flow."""
    generator = torch.Generator().manual_seed(seed)
    out = torch.zeros(1, 3, h, w)
    for side in octaves:
        coarse = torch.rand(1, 3, h // side + 2, w // side + 2, generator=generator)
        out += torch.nn.functional.interpolate(coarse, (h, w), mode="bicubic", align_corners=False) / len(octaves)
    return ((out - 0.5) * 1.6 + 0.5).clamp(0, 1)


def pan(frames, h, w, step_px=(3, -2), seed=0):
    """Pictures seen by a camera moving by step_px (x, y) a frame: flow_cur_to_prev is step_px everywhere."""
    dx, dy = step_px
    room = frames * max(abs(dx), abs(dy))
    big = texture(h + 2 * room, w + 2 * room, seed)
    return [
        big[..., room + dy * i : room + dy * i + h, room + dx * i : room + dx * i + w].clone() for i in range(frames)
    ]


def constant_flow(h, w, x, y):
    return torch.tensor([float(x), float(y)]).view(1, 2, 1, 1).expand(1, 2, h, w).clone()


def frame_of(rgb, seq=0, discontinuity=False):
    return Picture(Stamp(seq, seq * 40_000_000, discontinuity=discontinuity), rgb)


def as_bytes(rgb):
    """[1, 3, h, w] in [0, 1] -> uint8 [h, w, 3]."""
    return np.ascontiguousarray((rgb[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy())


def end_point_error(flow, truth, margin=0):
    gap = (flow - truth).square().sum(1).sqrt()
    return float(gap[..., margin : gap.shape[-2] - margin, margin : gap.shape[-1] - margin].mean())


def read_flo(path):
    """Read flow, [1, 2, h, w] in pixels. Unknown values are above 1e9."""
    raw = path.read_bytes()
    assert raw[:4] == b"PIEH"
    w, h = np.frombuffer(raw, "<i4", 2, 4)
    return torch.from_numpy(np.frombuffer(raw, "<f4", w * h * 2, 12).reshape(1, h, w, 2).copy()).permute(0, 3, 1, 2)


def read_picture(path):
    """[1, 3, h, w] in [0, 1]."""
    return torch.from_numpy(cv2.imread(str(path))[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255
