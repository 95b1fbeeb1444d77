"""What styles print with: a table of inks after the formula in Lab, and blends between styles."""

import numpy as np
import pytest
from pydantic import ValidationError

from warpfuse.engine.bundle_parts import Inks, Style
from warpfuse.stages.palette import SIDE, ink_table, palette_of

INKS = Inks(colours=((0.95, 0.9, 0.78), (0.12, 0.23, 0.42), (0.72, 0.25, 0.18)), temperature=60, shade=0.2)
FLAT = Style(vector=(1.0, 0.0), ink=(0.1, 0.1, 0.2), inks=INKS)
PLAIN = Style(vector=(0.0, 1.0), ink=(0.9, 0.5, 0.0), lines=0.5)
BARE = Style(vector=(0.0, 0.0), lines=0.0)
STYLES = {"flat": FLAT, "plain": PLAIN, "bare": BARE}

D65 = np.array([0.950456, 1.0, 1.088754])
XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])


def lab_of(rgb):
    """sRGB in [0, 1] to CIE L*a*b*, D65, by the formulas of IEC 61966-2-1 and CIE 15."""
    rgb = np.asarray(rgb, np.float64)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = np.moveaxis(linear @ XYZ.T / D65, -1, 0)
    f = [np.where(v > 0.008856, np.cbrt(v), 7.787 * v + 16 / 116) for v in (x, y, z)]
    return np.stack([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])], -1)


def expected_lab(rgb, inks=INKS):
    """L*a*b* of what a colour is printed as."""
    lab, ink = lab_of(rgb), lab_of(inks.colours)
    gap = (((lab - ink) * [0.75, 1, 1]) ** 2).sum(-1)
    share = np.exp(-(gap - gap.min()) / inks.temperature)
    mixed = (share / share.sum()) @ ink
    mixed[0] = (1 - inks.shade) * mixed[0] + inks.shade * lab[0]
    return mixed


@pytest.mark.parametrize("place", [(0, 0, 0), (32, 32, 32), (5, 20, 30), (28, 10, 4), (16, 16, 16), (31, 29, 24)])
def test_an_entry_is_the_soft_nearest_ink(place):
    red, green, blue = place
    found = ink_table(INKS)[blue, green, red]
    wanted = expected_lab(np.array(place) / (SIDE - 1))
    assert np.abs(lab_of(found) - wanted).max() < 0.6, "of 100; tables of OpenCV are rounded"


def test_the_axes_are_blue_green_red():
    """The control of the test above: another order gives another ink."""
    blue_of_red = expected_lab([30 / 32, 10 / 32, 4 / 32])
    assert np.abs(lab_of(ink_table(INKS)[30, 10, 4]) - blue_of_red).max() > 10
    assert np.abs(lab_of(ink_table(INKS)[4, 10, 30]) - blue_of_red).max() < 0.6


def test_colours_near_an_ink_become_it():
    inks = INKS.model_copy(update={"shade": 0.0})
    for colour in inks.colours:
        red, green, blue = (round(c * (SIDE - 1)) for c in colour)
        assert np.abs(ink_table(inks)[blue, green, red] - colour).max() < 0.02


def test_a_style_alone_prints_as_it_says():
    palette = palette_of(STYLES, {"flat": 1.0})
    assert palette.ink == pytest.approx(FLAT.ink) and palette.lines == 1
    assert palette.table is not None and np.array_equal(palette.table, ink_table(INKS))
    assert palette_of(STYLES, {"plain": 1.0}).table is None and palette_of(STYLES, {"bare": 1.0}).lines == 0


def test_a_blend_is_between_its_styles():
    palette = palette_of(STYLES, {"flat": 0.6, "plain": 0.4})
    assert palette.lines == pytest.approx(0.6 + 0.4 * 0.5)
    shares = np.array([0.6 * 1.0, 0.4 * 0.5]) / 0.8
    assert palette.ink == pytest.approx(shares @ np.array([FLAT.ink, PLAIN.ink]))
    red, green, blue = 8, 20, 30
    colour = np.array([red, green, blue]) / (SIDE - 1)
    between = 0.6 * ink_table(INKS)[blue, green, red] + 0.4 * colour
    assert palette.table is not None and palette.table[blue, green, red] == pytest.approx(between, abs=1e-6)


def test_a_style_without_lines_does_not_pale_the_ink_of_another():
    assert palette_of(STYLES, {"flat": 0.5, "bare": 0.5}).ink == pytest.approx(FLAT.ink)


@pytest.mark.parametrize("fault", [{"colours": ((0, 0, 0),)}, {"colours": ((0, 0, 0), (1, 1, 2))}, {"temperature": 0}])
def test_inks_that_make_no_sense_are_refused(fault):
    with pytest.raises(ValidationError):
        Inks.model_validate({"colours": ((0, 0, 0), (1, 1, 1)), **fault})
