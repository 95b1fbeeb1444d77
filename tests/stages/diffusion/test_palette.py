"""What styles print with: tables of colours from files, and blends between styles."""

import numpy as np
import pytest

from warpfuse.engine.bundle_parts import Style
from warpfuse.engine.errors import BundleError
from warpfuse.stages.diffusion.palette import SIDE, palette_of, read_table

FLAT = Style(vector=(1.0, 0.0), ink=(0.1, 0.1, 0.2), lut="flat.lut")
PLAIN = Style(vector=(0.0, 1.0), ink=(0.9, 0.5, 0.0), lines=0.5)
BARE = Style(vector=(0.0, 0.0), lines=0.0)
STYLES = {"flat": FLAT, "plain": PLAIN, "bare": BARE}


def printed(red, green, blue):
    """What the table below makes of a colour, each in 0 .. 32."""
    return np.array([255 - 7 * red, green, 3 * blue + red])


@pytest.fixture
def tables(tmp_path):
    colours = np.array([[[printed(r, g, b) for b in range(SIDE)] for g in range(SIDE)] for r in range(SIDE)], np.uint8)
    path = tmp_path / "flat.lut"
    path.write_bytes(colours.tobytes())
    return {"flat": read_table(path)}


@pytest.mark.parametrize("colour", [(0, 0, 0), (32, 0, 0), (0, 32, 0), (0, 0, 32), (5, 20, 30), (31, 29, 24)])
def test_a_file_says_the_print_of_red_green_blue_in_this_order(tables, colour):
    red, green, blue = colour
    assert tables["flat"][blue, green, red] * 255 == pytest.approx(printed(*colour), abs=1e-3)
    assert len(set(colour)) < 3 or tables["flat"][red, green, blue] * 255 != pytest.approx(printed(*colour), abs=1)


@pytest.mark.parametrize("length", [0, 3 * SIDE**3 - 1, 3 * SIDE**3 + 3])
def test_a_file_of_another_length_is_refused(tmp_path, length):
    path = tmp_path / "torn.lut"
    path.write_bytes(bytes(length))
    with pytest.raises(BundleError, match=f"torn.lut: expected {3 * SIDE**3} bytes.*found {length}"):
        read_table(path)


def test_a_style_alone_prints_as_it_says(tables):
    palette = palette_of(STYLES, {"flat": 1.0}, tables)
    assert palette.ink == pytest.approx(FLAT.ink) and palette.lines == 1
    assert palette.table is not None and np.array_equal(palette.table, tables["flat"])
    assert palette_of(STYLES, {"plain": 1.0}, tables).table is None
    assert palette_of(STYLES, {"bare": 1.0}, tables).lines == 0


def test_a_blend_is_between_its_styles(tables):
    palette = palette_of(STYLES, {"flat": 0.6, "plain": 0.4}, tables)
    assert palette.lines == pytest.approx(0.6 + 0.4 * 0.5)
    shares = np.array([0.6 * 1.0, 0.4 * 0.5]) / 0.8
    assert palette.ink == pytest.approx(shares @ np.array([FLAT.ink, PLAIN.ink]))
    red, green, blue = 8, 20, 30
    colour = np.array([red, green, blue]) / (SIDE - 1)
    between = 0.6 * printed(red, green, blue) / 255 + 0.4 * colour
    assert palette.table is not None and palette.table[blue, green, red] == pytest.approx(between, abs=1e-6)


def test_a_style_without_lines_does_not_pale_the_ink_of_another(tables):
    assert palette_of(STYLES, {"flat": 0.5, "bare": 0.5}, tables).ink == pytest.approx(FLAT.ink)
