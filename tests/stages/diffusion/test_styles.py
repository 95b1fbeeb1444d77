"""A prompt of named styles is a point between their vectors."""

import pytest

from warpfuse.stages.diffusion.styles import style_vector
from warpfuse.stages.errors import StyleError

STYLES = {"ink": (1.0, 0.0, 0.0), "oil": (0.0, 1.0, 0.0), "mosaic": (0.0, 0.0, 1.0)}


@pytest.mark.parametrize(
    "prompt, vector",
    [
        ("oil", (0, 1, 0)),
        (" OIL ", (0, 1, 0)),
        ("", (1, 0, 0)),
        ("ink, oil", (0.5, 0.5, 0)),
        ("ink:3, oil:1", (0.75, 0.25, 0)),
        ("ink:0.2, mosaic:0.6", (0.25, 0, 0.75)),
        ("ink:0, oil", (0, 1, 0)),
        ("ink, ink", (1, 0, 0)),
    ],
)
def test_a_prompt_is_the_weighted_mean(prompt, vector):
    assert style_vector(prompt, STYLES, "ink") == pytest.approx(vector)


@pytest.mark.parametrize(
    "prompt, says",
    [
        ("oils", "no style called 'oils'; did you mean 'oil'.*ink, oil, mosaic"),
        ("a castle", "no style called 'a castle'.*ink, oil, mosaic"),
        ("ink:much", "weight 'much'"),
        ("ink:-1", "weight '-1'"),
        ("ink:nan", "weight 'nan'"),
        ("ink:inf", "weight 'inf'"),
        ("ink:0", "add up to 0"),
    ],
)
def test_what_is_no_style_is_told_with_those_that_are(prompt, says):
    with pytest.raises(StyleError, match=says):
        style_vector(prompt, STYLES, "ink")
