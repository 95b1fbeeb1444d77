"""The virtual camera against the real v4l2loopback, as other programs see it."""

import json

import numpy as np
import pytest

COLOUR = np.array((200, 40, 90))


def yuv(rgb: np.ndarray) -> list[float]:
    """BT.709 limited by the formulas of the standard: (Y, U, V)."""
    r, g, b = rgb / 255
    luma = 0.2126 * r + 0.7152 * g + 0.0722 * b
    y, u, v = 16 + 219 * luma, 128 + 224 * (b - luma) / 1.8556, 128 + 224 * (r - luma) / 1.5748
    return [y, u, v]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("exclusive_caps", [0, 1])
def test_three_runs_in_a_row_are_seen_as_a_camera(exclusive_caps: int, guest: dict[str, tuple[int, str]]) -> None:
    rc, output = guest["guest_virtualcam.py"]
    assert rc == 0, output[-2000:]
    seen = json.loads(output.split("SEEN ", 1)[1].splitlines()[0])[str(exclusive_caps)]
    y, u, v = yuv(COLOUR)
    expected = {"nv12": [[y] * 4, [u, v, u, v]], "yuyv422": [[y, u, y, v]]}
    assert [run["format"] for run in seen["runs"]] == ["nv12", "yuyv422", "nv12"]
    for run in seen["runs"]:
        assert run["size"] == [320, 240]
        for plane, wanted in zip(run["planes"], expected[run["format"]], strict=True):
            np.testing.assert_allclose(plane, wanted, atol=1)
    assert seen["output"]  # still a device that takes pictures: exclusive_caps=1 takes that from one not streamed to
    assert seen["card"] == f"VCam{exclusive_caps}"
    assert seen["left"] == []
