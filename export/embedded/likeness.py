"""What a target keeps of its source: how bright it is, and the features the teacher paints over.

The teacher stretches whatever it sees, so night would come out as day, and it leaves eyes and letters out.
"""

from __future__ import annotations

from torch import Tensor, nn

LUMA = (0.2126, 0.7152, 0.0722)  # Rec. 709
RADIUS = 12  # pixels over which light is looked at: more than a stroke, less than a thing
FLAT = 0.01  # variance of luma below which a neighbourhood is all one light
GLOW, SLOPE = 0.16, 2.2  # a style may be that bright in full darkness, and so much brighter as its source is
FEATURE_RADIUS, FEATURES = 5, 0.6  # what is smaller than the radius, in pixels, and how much of it a target gets


def under_light(painted: Tensor, source: Tensor) -> Tensor:
    """`painted` [n,3,h,w] in [0,1], darkened where it is brighter than the light of `source` [n,3,h,w] lets it be.

    Light is luma smoothed along the edges of the source (guided filter, He et al. 2010), so strokes and lines keep
    their contrast and a lit thing lends no halo to the dark behind it. By day nothing changes.
    """
    guide = luma(source)
    allowed = GLOW + SLOPE * guided(guide, guide)
    return painted * (allowed / guided(luma(painted), guide).clamp_min(1e-3)).clamp(0.0, 1.0)


def with_features(painted: Tensor, source: Tensor) -> Tensor:
    """`painted` [n,3,h,w] in [0,1] with the small things of `source` drawn into it: its luma less the mean around."""
    here = luma(source)
    return (painted + FEATURES * (here - _box(here, FEATURE_RADIUS))).clamp(0.0, 1.0)


def guided(picture: Tensor, guide: Tensor, radius: int = RADIUS, flat: float = FLAT) -> Tensor:
    """picture [n,c,h,w] smoothed, but for the edges of guide [n,1,h,w]: in every window it is a line in the guide.

    flat  variance of the guide from which on its edges are kept
    """
    mean_guide, mean = _box(guide, radius), _box(picture, radius)
    covariance = _box(guide * picture, radius) - mean_guide * mean
    slope = covariance / (_box(guide * guide, radius) - mean_guide * mean_guide + flat)
    return _box(slope, radius) * guide + _box(mean - slope * mean_guide, radius)


def luma(rgb: Tensor) -> Tensor:
    """[n,3,h,w] -> [n,1,h,w]."""
    return (rgb * rgb.new_tensor(LUMA)[None, :, None, None]).sum(1, keepdim=True)


def _box(x: Tensor, radius: int) -> Tensor:
    side = 2 * radius + 1
    across = nn.functional.avg_pool2d(x, (1, side), 1, (0, radius), count_include_pad=False)
    return nn.functional.avg_pool2d(across, (side, 1), 1, (radius, 0), count_include_pad=False)
