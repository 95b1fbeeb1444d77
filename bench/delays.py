"""Figures and a plot of delays, from a viewer's list of pictures."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from far_ends import Camera, RtspCamera, Seen

WARM_UP_S = 2.0
AGE_HZ = 240  # of a screen; the age of what it shows


def figures(camera: Camera | RtspCamera, seen: Seen) -> dict[str, Any]:
    """Figures of a viewer's list, without its first `WARM_UP_S`."""
    if not seen:
        return {"arrived": 0}
    taken, begin = camera.taken, seen[0][0] + WARM_UP_S
    counted = [(at, number) for at, number in seen if at >= begin and at <= taken[-1]]
    good = [(at, number) for at, number in counted if number is not None and number < len(taken)]
    latency = np.array([at - taken[number] for at, number in good]) * 1e3
    ages, newest = [], None
    waiting = iter(good)
    following = next(waiting, None)
    for tick in np.arange(begin, taken[-1], 1 / AGE_HZ):
        while following is not None and following[0] <= tick:
            newest, following = following[1], next(waiting, None)
        if newest is not None:
            ages.append((tick - taken[newest]) * 1e3)
    numbers = [number for _, number in good]
    steps = np.diff(numbers) if len(numbers) > 1 else np.array([0])
    return {
        "arrived": len(good),
        "latency_ms": spread(latency),
        "age_ms": spread(np.array(ages)),
        "trend_ms_a_minute": trend(np.array([taken[number] for _, number in good]), latency),
        "skipped": int(np.maximum(steps - 1, 0).sum()),
        "repeated": int((steps == 0).sum()),
        "bad_codes": len(counted) - len(good),
        "missed_at_source": camera.missed,
        "samples": np.round(latency, 1).tolist(),
    }


def spread(values: Any) -> dict[str, float]:
    """Percentiles."""
    if not len(values):
        return {}
    named = {name: float(np.percentile(values, share)) for name, share in (("p50", 50), ("p95", 95), ("p99", 99))}
    return {name: round(value, 1) for name, value in {**named, "max": float(values.max())}.items()}


def trend(taken: Any, latency: Any) -> float | None:
    """Change of the median latency of 5 s in a minute (least squares); None for less than 20 s."""
    block = ((taken - taken[0]) // 5).astype(int) if len(taken) else np.zeros(0, int)
    medians = [float(np.median(latency[block == number])) for number in np.unique(block)]
    return round(12 * float(np.polyfit(np.unique(block), medians, 1)[0]), 2) if len(medians) >= 4 else None


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Plot the distribution of each row's latencies: the share of frames (y) that took longer (x, 0 to 500 ms)."""
    width, height, left, most = 720, 360, 60, 500.0
    canvas = np.full((height + 60, width + 2 * left, 3), 255, np.uint8)
    for ms in range(0, int(most) + 1, 50):
        x = left + int(ms / most * width)
        cv2.line(canvas, (x, 20), (x, 20 + height), (225, 225, 225), 1)
        cv2.putText(canvas, f"{ms}", (x - 12, height + 40), 0, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    for index, row in enumerate(rows):
        colour = tuple(int(v) for v in cv2.cvtColor(np.uint8([[[index * 30, 200, 170]]]), cv2.COLOR_HSV2BGR)[0, 0])
        values = np.sort(row.get("samples") or [0.0])
        share = np.linspace(1, 0, len(values))
        x = left + np.minimum(values, most) / most * width
        points = np.stack([x, 20 + height * (1 - share)], 1).astype(np.int32)
        cv2.polylines(canvas, [points], False, colour, 2, cv2.LINE_AA)
        name = f"{row['sink']} {row['style']}"
        cv2.putText(canvas, name, (left + width - 130, 40 + 18 * index), 0, 0.45, colour, 1, cv2.LINE_AA)
    cv2.putText(canvas, "share of frames that took longer than ... ms", (left, 14), 0, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    cv2.imwrite(str(path), canvas)
