"""A thousand frames through the bundle that ships: the picture that is fed back stays what it was."""

import cv2
import numpy as np
import pytest

import warpfuse

SIZE = (128, 80)
LOOP, START = 20, 10


def road():
    """Frames of a plain ground seen by a hand-held camera: where strokes grow that were never there."""
    random = np.random.default_rng(0)
    ground = cv2.GaussianBlur(random.normal(0, 1, (120, 168, 3)), (0, 0), 1.5)
    ground = 120 + 25 * ground / ground.std() + np.linspace(-30, 30, 168)[None, :, None]
    for step in range(LOOP):
        turn = 2 * np.pi * step / LOOP
        x, y = 18 + 6 * np.cos(turn), 18 + 4 * np.sin(turn)
        shift = np.float32([[1, 0, -x], [0, 1, -y]])
        moved = cv2.warpAffine(ground, shift, SIZE, flags=cv2.INTER_CUBIC)
        yield np.clip(moved, 0, 255).astype(np.uint8)


def seen(picture):
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    flat = picture.reshape(-1, 3) / 255
    return [*flat.mean(0), *flat.std(0), cv2.Laplacian(gray, cv2.CV_32F).var()]


def drift(frames, precision="float", prompt="", **fuse):
    """Largest change of means, deviations and sharpness between two visits to the same frame of the loop."""
    loop = list(road())
    with warpfuse.Pipeline(prompt=prompt, size=SIZE, precision=precision, stages={"fuse": fuse}) as pipeline:
        rows = [seen(pipeline.push(loop[i % LOOP])) for i in range(frames)]
    visits = np.array(rows[START::LOOP])
    moved = np.abs(visits / visits[0] - 1).max(axis=0)
    return moved[:3].max(), moved[3:6].max(), moved[6]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("precision", ["float", "int8"])
def test_nothing_has_moved_after_a_thousand_frames(precision):
    mean, deviation, sharpness = drift(1000, precision)
    assert mean < 0.03 and deviation < 0.03 and sharpness < 0.05


def test_without_the_anchor_contrast_moves():
    """The control, with a memory long enough to show it within a few rounds, in a style without a table of inks."""
    mean, deviation, _ = drift(310, prompt="pencil", weight=0.95)
    assert mean < 0.03 and deviation < 0.03
    _, deviation, _ = drift(310, prompt="pencil", weight=0.95, anchor={"entry": False, "exit": 0})
    assert deviation > 0.045
