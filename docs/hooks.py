"""An example of each hook. In a graph file: `hooks: docs/hooks.py`."""


def source(rgb, stamp):
    """Lift the shadows before the networks see them. rgb: float32 [1, 3, h, w] in [0, 1]."""
    return rgb**0.8


def x0(z, stamp):
    """More contrast of the predicted clean latent. z: float32 [1, c, h / d, w / d]."""
    return z * 1.05


def picture(rgb, stamp):
    """Dark lines over the finished picture, changed in place. rgb: float32 [1, 3, h, w] in [0, 1]."""
    rgb[:, :, ::4] *= 0.7
    return rgb


def settings(keys):
    """One slider for two: fusion follows strength, where it is not given itself."""
    return {"fusion": keys["strength"], **keys} if "strength" in keys else keys
