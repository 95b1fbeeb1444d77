"""Converting pictures with other primaries or transfer functions than BT.709's for a BT.709 display.

PyAV's FFmpeg has no zscale or libplacebo, and its swscale shows HDR clipped or far too dark.
"""

from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

F64 = npt.NDArray[np.float64]

_PQ, _HLG = 16, 18  # ITU-T H.273's TransferCharacteristics, as FFmpeg numbers them
_TRANSFER_NAME = {_PQ: "PQ", _HLG: "HLG"}
_BT709, _BT2020 = 1, 9
_D65, _C, _DCI = (0.3127, 0.3290), (0.310, 0.316), (0.314, 0.351)
_XY = {  # H.273's ColourPrimaries: x and y of red, green, blue, white
    _BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),
    4: ((0.670, 0.330), (0.210, 0.710), (0.140, 0.080), _C),
    5: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060), _D65),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    8: ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),
    _BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _DCI),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
    22: ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), _D65),
}
_WIDE = {4: "BT.470 M", 8: "film", _BT2020: "BT.2020", 11: "DCI-P3", 12: "Display P3"}  # gamuts wider than BT.709's
# Bradford's cone response matrix, for chromatic adaptation from one white to another.
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

_DISPLAY_GAMMA = 2.4  # BT.1886
_WHITE_NITS = 203.0  # BT.2408: diffuse white of HDR, which becomes the white of SDR
_PEAK_NITS = 1000.0  # peak of HLG's reference display and of most PQ grading; brighter light is clipped
_MOST_NITS = 10_000.0  # the largest value of PQ
_BT2020_LUMINANCE = np.array([[0.2627, 0.6780, 0.0593]], np.float32)


@dataclass(frozen=True, slots=True)
class Colour:
    """Colour space of a picture: H.273's codes of primaries and transfer function."""

    primaries: int
    transfer: int

    @classmethod
    def of(cls, frame: VideoFrame) -> "Colour | None":
        """The colour space of a picture that has to be converted; None for a picture that needs no conversion.

        Untagged primaries are BT.709's, and BT.2020's in HDR. All SDR transfer functions count as the display's.
        """
        transfer = frame.color_trc if frame.color_trc in _TRANSFER_NAME else _BT709
        primaries = frame.color_primaries
        if primaries not in _XY:
            primaries = _BT709 if transfer == _BT709 else _BT2020
        return None if primaries == transfer == _BT709 else cls(primaries, transfer)

    @property
    def note(self) -> str | None:
        """What is lost on a BT.709 display, in words; None: nothing."""
        if self.transfer in _TRANSFER_NAME:
            return f"HDR shown as SDR ({_TRANSFER_NAME[self.transfer]})"
        return f"colours of {_WIDE[self.primaries]} shown in BT.709" if self.primaries in _WIDE else None


class ColourConversion:
    """Converts pictures of one `Colour` to BT.709 in linear light, and HDR to SDR.

    HLG and PQ are those of BT.2100. BT.2390's tone curve maps 1000 nits to 203; its gain follows from the largest of
    red, green and blue. Colours outside of BT.709 are clipped.

    format  FFmpeg's pixel format of the pictures it takes; HDR needs more than 8 bits
    """

    def __init__(self, colour: Colour) -> None:
        hdr = colour.transfer in _TRANSFER_NAME
        self.format = "rgb48le" if hdr else "rgb24"
        self._is_hlg = colour.transfer == _HLG
        self._light = _light(np.linspace(0, 1, 1 << 16 if hdr else 256), colour.transfer).astype(np.float32)
        roots = np.linspace(0, 1, 1 << 16)
        self._gain: npt.NDArray[np.float32] | None = None
        if hdr:
            nits = np.maximum(roots**2 * _MOST_NITS, 1e-3)
            self._gain = (_tone_mapped(nits) / nits).astype(np.float32)
        self._primaries = _conversion(colour.primaries, _BT709).astype(np.float32)
        self._shown = np.rint(255 * roots ** (2 / _DISPLAY_GAMMA)).astype(np.uint8)

    def __call__(self, picture: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
        """Convert a picture, RGB [h, w, 3] of full range, uint8 or uint16 as in `format`, to uint8 RGB."""
        light = self._light[picture] if picture.itemsize > 1 else cv2.LUT(picture, self._light)  # 1.0 is SDR's white
        if self._is_hlg:
            luminance = cv2.transform(light, _BT2020_LUMINANCE)
            light *= (_PEAK_NITS / _WHITE_NITS) * luminance[..., None] ** np.float32(0.2)  # BT.2100's OOTF
        if self._gain is not None:
            light *= self._gain[_root(light.max(-1, keepdims=True) * np.float32(_WHITE_NITS / _MOST_NITS))]
        return self._shown[_root(cv2.transform(light, self._primaries))]


def _root(light: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """Index of light 0..1 in a table of 65536 entries that are spaced by square roots, so densely in the dark."""
    roots = np.sqrt(np.maximum(light, 0, out=light), out=light)
    scaled: Any = cv2.multiply(roots.reshape(len(light), -1), cast(Any, 65535.0), dtype=cv2.CV_16U)
    index: npt.NDArray[np.uint16] = scaled.reshape(light.shape)  # rounded, and clamped to 65535
    return index


def _light(values: F64, transfer: int) -> F64:
    """Linear light of coded values 0..1, where 1.0 is SDR's white. For HLG the light of the scene, 0..1."""
    if transfer == _HLG:  # BT.2100, table 5: the inverse of the OETF
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        return np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)
    light: F64 = _pq_nits(values) / _WHITE_NITS if transfer == _PQ else values**_DISPLAY_GAMMA
    return light


_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128  # PQ, BT.2100, table 4


def _pq_nits(values: F64) -> F64:
    """PQ's EOTF (BT.2100, table 4): coded values 0..1 to nits."""
    root = values ** (1 / _M2)
    nits: F64 = 10_000 * (np.maximum(root - _C1, 0) / (_C2 - _C3 * root)) ** (1 / _M1)
    return nits


def _pq_values(nits: F64) -> F64:
    """The inverse of `_pq_nits`: nits to coded values 0..1."""
    power = (nits / 10_000) ** _M1
    values: F64 = ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2
    return values


def _tone_mapped(nits: F64) -> F64:
    """BT.2390's EETF (5.4.1) from `_PEAK_NITS` to `_WHITE_NITS`, both with a black of 0: nits to nits."""
    peak, white = (_pq_values(np.array(level)) for level in (_PEAK_NITS, _WHITE_NITS))
    top = white / peak
    knee = 1.5 * top - 0.5
    value = (_pq_values(nits) / peak).clip(0, 1)
    t = (value - knee) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * top
    return _pq_nits(np.where(value < knee, value, spline) * peak)


def _conversion(source: int, target: int) -> F64:
    """Matrix [3, 3] from linear light in one set of primaries to another, with adaptation of the white."""
    (to_xyz, white), (from_xyz, seen_white) = _to_xyz(source), _to_xyz(target)
    adapted = np.linalg.inv(_BRADFORD) @ np.diag((_BRADFORD @ seen_white) / (_BRADFORD @ white)) @ _BRADFORD
    conversion: F64 = np.linalg.inv(from_xyz) @ adapted @ to_xyz
    return conversion


def _to_xyz(primaries: int) -> tuple[F64, F64]:
    """Matrix [3, 3] from linear RGB to CIE XYZ, and the XYZ of white [3]."""
    *points, white = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in _XY[primaries])
    columns = np.stack(points, 1)
    return columns * np.linalg.solve(columns, white), white
