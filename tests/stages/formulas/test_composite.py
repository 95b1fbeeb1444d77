"""Paint, inks and lines laid over one another, in both forms."""

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d, grid_sample

from warpfuse.engine.bundle_parts import Style
from warpfuse.stages.diffusion.palette import SIDE, palette_of
from warpfuse.stages.formulas.composite import shares_of

BYTES = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, SIDE, 3), np.uint8)
TABLES = dict(zip(["both", "third"], BYTES.astype(np.float32) / np.float32(255), strict=True))  # as of a `lut` file
STYLES = {
    "both": Style(vector=(1.0, 0.0), ink=(0.1, 0.2, 0.3), lines=0.8, lut="both.lut"),
    "lines": Style(vector=(0.0, 1.0), ink=(0.9, 0.2, 0.3)),
    "third": Style(vector=(0.0, 1.0), ink=(0.5, 0.2, 0.3), lut="third.lut"),
}
BLENDS = {
    "both": ({"both": 1.0}, 1e-5),
    "lines": ({"lines": 1.0}, 1e-5),
    "mixed": ({"both": 0.3, "third": 0.7}, 1 / 2040),
}


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("shares", "tolerance"), BLENDS.values(), ids=list(BLENDS))
@pytest.mark.parametrize("strength", [1.0, 0.35])
def test_the_picture_is_that_of_the_formula(ops, shares, tolerance, strength):
    """The table of a blend is no longer one of bytes: a CPU may round it to ten bits."""
    paint, cover = random(1, 3, 31, 45), random(1, 1, 31, 45, seed=1)
    palette = palette_of(STYLES, shares, TABLES)
    table = None if palette.table is None else torch.from_numpy(palette.table.copy())
    printed = paint
    if table is not None:
        grid = torch.stack([paint[:, 0], paint[:, 1], paint[:, 2]], -1)[:, None] * 2 - 1
        looked_up = grid_sample(table.permute(3, 0, 1, 2)[None], grid, align_corners=True)[:, :, 0]
        printed = paint + strength * (looked_up - paint)
    ink = torch.tensor(palette.ink)[None, :, None, None]
    wanted = printed + strength * palette.lines * cover * (ink - printed)
    found = ops.composed(paint, cover, table, shares_of(palette.ink, palette.lines, strength))
    torch.testing.assert_close(found, wanted, atol=tolerance + 1e-6, rtol=0)
    unlike = ops.composed(paint.flip(1), cover, table, shares_of(palette.ink, palette.lines, strength))
    assert (unlike - wanted).abs().max() > 0.05, "the control: blue for red"


def test_strange_values_stay_within_the_table(ops):
    palette = palette_of(STYLES, {"both": 1.0}, TABLES)
    table = torch.from_numpy(palette.table.copy())
    paint = torch.tensor([-0.2, 0.0, 1.0, 1.7, float("inf"), -float("inf")]).repeat(1, 3, 4, 1)
    assert ops.composed(paint[..., :4], None, table, shares_of(palette.ink, palette.lines, 1.0)).isfinite().all()
    held = ops.composed(paint[..., :4].clamp(0, 1), None, table, shares_of(palette.ink, palette.lines, 1.0))
    torch.testing.assert_close(
        ops.composed(paint[..., :4], None, table, shares_of(palette.ink, palette.lines, 1.0)), held, atol=1e-6, rtol=0
    )
    ops.composed(torch.full((1, 3, 4, 4), float("nan")), None, table, shares_of(palette.ink, palette.lines, 1.0))


def test_a_fused_cover_is_as_sharp_as_the_one_drawn(ops):
    def sharpness(x):
        return float((x - avg_pool2d(x, 3, 1, 1, count_include_pad=False)).square().mean().sqrt())

    drawn = avg_pool2d(random(1, 1, 40, 48), 5, 1, 2) * 0.5 + 0.25  # away from 0 and 1, where it would be held
    blurred = 0.5 * (drawn + drawn.roll(1, 3))
    assert sharpness(blurred) < 0.9 * sharpness(drawn), "the control: blurred it is"
    assert sharpness(ops.as_sharp_as(drawn, blurred)) == pytest.approx(sharpness(drawn), rel=0.05)
    assert torch.equal(ops.as_sharp_as(drawn, drawn), drawn), "what is still stays as it is"


@pytest.mark.parametrize("channels", [1, 3])
def test_small_changes_are_fused_once_more_and_large_ones_pass(ops, channels):
    """Against numpy; at trust 0, weight 0 and limit 0 nothing changes."""
    x, past = random(1, channels, 31, 45), random(1, channels, 31, 45, seed=1)
    x[..., :20] = past[..., :20] + 0.02 * (x[..., :20] - 0.5)
    trust = random(1, 1, 31, 45, seed=2)
    found = ops.cored(x, past, trust, torch.tensor([0.8, 0.03]))
    wanted = x.numpy() - 0.8 * trust.numpy() * np.clip(x.numpy() - past.numpy(), -0.03, 0.03)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-6)
    assert float((found - x).abs().max()) <= 0.8 * 0.03 + 1e-6, "a large change is short of itself by no more"
    for unchanged in (
        ops.cored(x, past, trust * 0, torch.tensor([0.8, 0.03])),
        ops.cored(x, past, trust, torch.tensor([0.0, 0.03])),
        ops.cored(x, past, trust, torch.tensor([0.8, 0.0])),
    ):
        assert torch.equal(unchanged, x)


def test_nothing_of_what_is_gone_stays_after_coring(ops):
    """A step that is over: what was there before fades by the weight from frame to frame. The control has weight 1."""
    trust, now = torch.ones(1, 1, 8, 8), torch.full((1, 3, 8, 8), 0.5)
    left = {0.8: torch.full_like(now, 0.9), 1.0: torch.full_like(now, 0.9)}
    for _ in range(12):
        left = {weight: ops.cored(now, past, trust, torch.tensor([weight, 0.03])) for weight, past in left.items()}
    assert float((left[0.8] - now).max()) == pytest.approx(0.03 * 0.8**12, rel=1e-3)
    assert float((left[1.0] - now).max()) == pytest.approx(0.03, rel=1e-3), "the control"
