"""The size the networks run at: the source's shape, the bundle's multiple, never silently something else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpfuse.engine.bundle_parts import Sizes
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.sizing import choose_size

SIZES = Sizes(multiple=8, minimum=64, default_long_side=512)


@given(w=st.integers(300, 4000), h=st.integers(300, 4000))
def test_the_shape_of_the_source_is_kept(w, h):
    (width, height), _ = choose_size(None, (w, h), SIZES)
    assert width % 8 == height % 8 == 0 and (max(width, height) <= 512 or min(width, height) == 64)
    assert abs(width / height - w / h) <= (w / h) * (4 / width + 4 / height) * 1.01


def test_a_size_that_fits_is_taken_without_a_word():
    assert choose_size((512, 288), (1920, 1080), SIZES) == ((512, 288), "")
    assert choose_size(None, (512, 288), SIZES) == ((512, 288), "")


def test_rounding_is_said():
    size, line = choose_size((500, 281), (1920, 1080), SIZES)
    assert size == (504, 280)
    assert "500x281 rounded to 504x280" in line


def test_a_small_source_is_enlarged_only_to_what_the_networks_take():
    assert choose_size(None, (320, 240), SIZES)[0] == (320, 240)
    assert choose_size(None, (64, 32), SIZES)[0] == (128, 64)


@pytest.mark.parametrize("size", [(16, 16), (512, 40)])
def test_below_what_the_networks_take_is_an_error(size):
    with pytest.raises(ConfigError, match="64 pixels or more"):
        choose_size(size, (1920, 1080), SIZES)


def test_networks_of_one_size_take_that_size_alone():
    assert choose_size(None, (640, 360), SIZES, (448, 256)) == ((448, 256), "source is 640x360, running at 448x256")
    assert choose_size((448, 256), (448, 256), SIZES, (448, 256)) == ((448, 256), "")
    with pytest.raises(ConfigError, match=r"exported for 448x256.*--size 512x256"):
        choose_size((512, 256), (640, 360), SIZES, (448, 256))
