"""Photographs for training: their licences, reading them, and random crops."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from warpfuse.engine.errors import BadInput

Picture = NDArray[np.uint8]  # [h,w,3], RGB

# Share-alike and GPL material is left out: the weights are published under Apache-2.0.
PERMITTED = re.compile(r"CC0|public domain|Kodak|CC-BY-\d|Unsplash|Pexels|permissive")
FORBIDDEN = re.compile(r"GPL|-SA\b")
HELD_OUT = (
    "kodak_kodim04.jpg",
    "kodak_kodim08.jpg",
    "kodak_kodim20.jpg",
    "lomiri_picosdeeuropa_by_Aitzol_Berasategi.jpg",
    "elem_Mr_Lee.jpg",
    "mdn_hummingbird.jpg",
)
SUFFIXES = {".jpg", ".jpeg", ".png"}


def permitted(folder: Path) -> list[Path]:
    """The photographs in `folder` that may be used for training, sorted by name.

    With an INDEX.tsv (name, size, source, licence) only files with a permissive licence; without one all files.
    Raises BadInput if the folder is missing.
    """
    if not folder.is_dir():
        raise BadInput(
            f"{folder}: expected a folder of photographs, got none. Give --photos one with JPEG or PNG files"
        )
    index = folder / "INDEX.tsv"
    if not index.exists():
        return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    with index.open(newline="", encoding="utf-8") as f:
        rows = [r for r in csv.reader(f, delimiter="\t") if len(r) >= 4]
    return sorted(folder / r[0] for r in rows if PERMITTED.search(r[3]) and not FORBIDDEN.search(r[3]))


def training_set(folder: Path, held_out: Sequence[str] = HELD_OUT) -> list[Picture]:
    """The photographs for training, without those held out for evaluation.

    Raises BadInput: there are none, or one cannot be read.
    """
    paths = [p for p in permitted(folder) if p.name not in held_out]
    if not paths:
        raise BadInput(
            f"{folder}: expected photographs with a permissive licence, got none. Put JPEG or PNG files there"
        )
    return [read(p) for p in paths]


def read(path: Path) -> Picture:
    """Read a picture. Raises BadInput: the file is missing, or no picture."""
    if not path.is_file():
        raise BadInput(f"{path}: expected a photograph, got no file. Put it there, or take its line out of INDEX.tsv")
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise BadInput(f"{path}: expected a picture OpenCV can read, got something else. Convert it to JPEG or PNG")
    return np.ascontiguousarray(bgr[:, :, ::-1])


def to_tensor(pictures: Sequence[Picture]) -> Tensor:
    """uint8 [h,w,c] each -> float32 [n,c,h,w] in [0,1], channels last."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().div_(255.0)


def jitter(picture: Picture, rng: np.random.Generator, dark: float = 0.2) -> Picture:
    """Small random changes of gamma, gain and colour. A share `dark` of the pictures becomes dark, as from webcams."""
    gain = np.exp(rng.normal(0.0, 0.05, 3) + rng.normal(0.0, 0.08))
    if rng.random() < dark:
        gain = gain * rng.uniform(0.3, 0.8)
    x = np.arange(256, dtype=np.float64) / 255.0
    gamma = np.exp(rng.normal(0.0, 0.18))
    table = np.clip(255.0 * gain[None] * (x**gamma)[:, None] + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(picture, table[None]))


def crop(picture: Picture, side: int, rng: np.random.Generator, largest: float = 1.0) -> Picture:
    """A random square of `side` pixels, scaled down from up to `largest` times its size; half of them mirrored."""
    h, w = picture.shape[:2]
    factor = float(np.exp(rng.uniform(0.0, np.log(max(1.0, min(largest, min(h, w) / side))))))
    taken = min(round(side * factor), h, w)
    y, x = int(rng.integers(0, h - taken + 1)), int(rng.integers(0, w - taken + 1))
    out = picture[y : y + taken, x : x + taken]
    if taken != side:
        smooth = cv2.INTER_AREA if taken > side else cv2.INTER_CUBIC
        out = cv2.resize(out, (side, side), interpolation=smooth).astype(np.uint8)
    return np.ascontiguousarray(out[:, ::-1] if rng.random() < 0.5 else out)
