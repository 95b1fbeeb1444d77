import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from warpfuse.stages.formulas.fusion import rescale
from warpfuse.stages.solvers.levels import CLEAN, Level, flow_level, level_at, levels
from warpfuse.stages.solvers.pair import clean_and_noise, compose, ddim_noise, fuse

TABLE = levels()
VP = level_at(TABLE, 601)
VP_NEXT = level_at(TABLE, 401)
FAMILIES = {
    "epsilon": ("epsilon", VP, VP_NEXT),
    "v": ("v", VP, VP_NEXT),
    "sample": ("sample", VP, VP_NEXT),
    "karras": ("epsilon", Level(1.0, 7.5, 800.0), Level(1.0, 2.5, 500.0)),
    "flow": ("flow", flow_level(700), flow_level(400)),
}
N = 100_000
TOLERANCE = 4 / math.sqrt(2 * N)


def normal(*size, seed=0, dtype=torch.float64):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def correlated(n, rho, seed):
    """Unit noise whose correlation with n is rho."""
    return rho * n + math.sqrt(1 - rho * rho) * normal(*n.shape, seed=seed)


def said(prediction, x0, n, level):
    """What a perfect network says of x = alpha x0 + sigma n."""
    answers = {"epsilon": n, "v": level.alpha * n - level.sigma * x0, "sample": x0, "flow": n - x0}
    return answers[prediction]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_pair_is_recovered_and_composes_to_the_latent_again(family):
    prediction, level, _ = FAMILIES[family]
    x0, n = normal(2, 4, 8, 8, seed=1), normal(2, 4, 8, 8, seed=2)
    x = compose(x0, n, level)
    x0_got, n_got = clean_and_noise(x, said(prediction, x0, n, level), level, prediction)
    assert (x0_got - x0).abs().max() < 1e-12
    assert (n_got - n).abs().max() < 1e-12
    # and whatever a network says, the pair composes to the latent it was asked about
    pair = clean_and_noise(x, normal(2, 4, 8, 8, seed=3), level, prediction)
    assert (compose(*pair, level) - x).abs().max() < 1e-12


@pytest.mark.parametrize(
    "family, eta",
    [(family, 0.0) for family in FAMILIES]
    + [(family, eta) for family in ("epsilon", "v", "sample") for eta in (0.5, 1.0)],
)
@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.3, 0.7, 1.0])
def test_fusion_keeps_the_noise_at_its_level(family, rho, eta):
    _, level, level_next = FAMILIES[family]
    n = normal(N, seed=1)
    own = ddim_noise(n, normal(N, seed=2), eta, level, level_next) if eta else n
    n_ref, zero = correlated(own, rho, seed=3), torch.zeros(N, dtype=torch.float64)
    for w in (0, 0.1, 0.3, 0.5, 0.9, 1):
        x = fuse(zero, own, zero, n_ref, w, rho, level_next)
        assert abs(float(x.std()) / level_next.sigma - 1) < TOLERANCE, w


def test_fusion_keeps_the_noise_at_its_level_for_every_part_of_a_mask():
    w = torch.linspace(0, 1, 8, dtype=torch.float64).repeat_interleave(N // 8)
    n, n_ref, zero = normal(N, seed=1), normal(N, seed=2), torch.zeros(N, dtype=torch.float64)
    x = fuse(zero, n, zero, n_ref, w, 0.0, VP_NEXT).view(8, -1)
    assert ((x.std(dim=1) / VP_NEXT.sigma - 1).abs() < 4 / math.sqrt(2 * N / 8)).all()


@pytest.mark.parametrize(
    "rho, gain, ratio",
    [(0.0, lambda w: 1 - w, 0.708), (1.0, lambda w: math.sqrt(1 - w * w), 1.366)],
    ids=["blending fresh noise", "rescaling the same noise"],
)
def test_control_the_wrong_gain_changes_the_noise_level(rho, gain, ratio):
    n = normal(N, seed=1)
    wrong = 0.5 * correlated(n, rho, seed=2) + gain(0.5) * n
    assert float(wrong.std()) == pytest.approx(ratio, abs=0.005)


def test_control_the_line_that_rescales_the_direction_alone_loses_noise_at_eta_1():
    level, level_next = level_at(TABLE, 999), level_at(TABLE, 301)  # k^2 is near its largest here
    largest = math.sqrt(1 - (level.alpha / level_next.alpha) ** 2) / level.sigma
    # img_ref w + (1 - w) (img - dir_xt) + r dir_xt: the fresh part of img is scaled by 1 - w with the picture
    w, found = 0.5, {}
    for k in (largest, math.sqrt(0.307)):
        n, z, n_ref = normal(N, seed=1), normal(N, seed=2), normal(N, seed=3)
        direction = math.sqrt(1 - k * k) * n
        img = direction + k * z
        found[k] = float((n_ref * w + (1 - w) * (img - direction) + rescale(w, 0.0) * direction).std())
        assert found[k] == pytest.approx(math.sqrt(1 - k * k / 2), abs=0.01)
        right = w * n_ref + rescale(w, 0.0) * img
        assert float(right.std()) == pytest.approx(1, abs=0.01)
    assert found[math.sqrt(0.307)] == pytest.approx(0.92, abs=0.01)
    assert min(found.values()) < 0.72


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_ends_of_the_weight_are_exact(rho, dtype):
    x0, n, x0_ref, n_ref = (normal(1, 4, 8, 8, seed=i).to(dtype) for i in range(4))
    for zero, one in ((0.0, 1.0), (torch.zeros(1, 1, 8, 8, dtype=dtype), torch.ones(1, 1, 8, 8, dtype=dtype))):
        assert torch.equal(fuse(x0, n, x0_ref, n_ref, zero, rho, VP), compose(x0, n, VP))
        assert torch.equal(fuse(x0, n, x0_ref, n_ref, one, rho, VP), compose(x0_ref, n_ref, VP))
        assert fuse(x0, n, x0_ref, n_ref, one, rho, VP).dtype == dtype


def test_the_same_noise_is_blended_and_then_added():
    x0, n, x0_ref, w = (
        normal(1, 4, 8, 8),
        normal(1, 4, 8, 8, seed=1),
        normal(1, 4, 8, 8, seed=2),
        torch.rand(1, 1, 8, 8),
    )
    blended = compose(w * x0_ref + (1 - w) * x0, n, VP)
    assert (fuse(x0, n, x0_ref, n, w, 1.0, VP) - blended).abs().max() < 1e-6


def test_the_signal_is_neither_darkened_nor_brightened_by_a_soft_mask():
    one, m = torch.ones(1, 1, 1, 64), torch.linspace(0, 1, 64).view(1, 1, 1, 64)
    assert (fuse(one, None, one, None, 0.5 * m, 0.0, CLEAN) - 1).abs().max() < 1e-6
    masked_twice = fuse(one, None, one * m, None, 0.5 * m, 0.0, CLEAN)
    assert float(masked_twice.min()) == pytest.approx(0.875, abs=0.001)  # the control: a seam 12.5 % darker


def test_the_last_step_needs_no_noise_and_others_do():
    x0, x0_ref = normal(1, 4, 8, 8), normal(1, 4, 8, 8, seed=1)
    assert torch.allclose(fuse(x0, None, x0_ref, None, 0.25, 0.0, CLEAN), 0.25 * x0_ref + 0.75 * x0)
    with pytest.raises(ValueError, match="n_ref"):
        fuse(x0, x0, x0_ref, None, 0.25, 0.0, VP)
    with pytest.raises(ValueError, match="sigma = 0"):
        compose(x0, None, VP)


def test_arithmetic_is_wide_whatever_comes_in():
    level = TABLE[999]
    x0, n = normal(1, 4, 64, 64), normal(1, 4, 64, 64, seed=1)
    x = compose(x0, n, level).half()
    wide, _ = clean_and_noise(x.double(), n.half().double(), level, "epsilon")
    got, _ = clean_and_noise(x, n.half(), level, "epsilon")
    assert got.dtype == torch.float16
    narrow = (x - level.sigma * n.half()) / level.alpha  # the control: half precision throughout
    assert (got.double() - wide).abs().max() < 0.003 * wide.abs().max()
    assert (narrow.double() - wide).abs().mean() > 5 * (got.double() - wide).abs().mean()


@given(w=st.floats(0, 1), rho=st.floats(-1, 1))
def test_rescale_is_the_positive_root(w, rho):
    r = rescale(w, rho)
    assert r >= -1e-12
    assert w * w + r * r + 2 * w * r * rho == pytest.approx(1, abs=1e-9)
    assert float(rescale(torch.tensor(w, dtype=torch.float64), rho)) == pytest.approx(r, abs=1e-12)


def test_rescale_of_a_weight_a_rounding_above_one_is_a_number():
    assert float(rescale(torch.tensor(1.0000001), 0.0)) == 0


def test_what_is_out_of_range_is_refused():
    x = torch.zeros(1, 4, 8, 8)
    for alpha, sigma, timestep in ((-0.1, 1, 0), (1, -0.1, 0), (0, 0, 0), (math.nan, 1, 0), (1, 1, math.inf)):
        with pytest.raises(ValueError, match="level"):
            Level(alpha, sigma, timestep)
    for w, rho in ((-0.1, 0.0), (1.1, 0.0), (0.5, 1.1), (math.nan, 0.0), (0.5, math.nan)):
        with pytest.raises(ValueError, match="must be in"):
            rescale(w, rho)
    with pytest.raises(ValueError, match="weight"):
        fuse(x, x, x, x, 1.5, 0.0, VP)
    with pytest.raises(ValueError, match="epsilon, v, sample, flow"):
        clean_and_noise(x, x, VP, "eps")
    for prediction, level in (("epsilon", Level(0, 1, 0)), ("v", Level(1, 1, 0)), ("sample", CLEAN), ("flow", VP)):
        with pytest.raises(ValueError, match="needs a level"):
            clean_and_noise(x, x, level, prediction)
    with pytest.raises(ValueError, match="eta"):
        ddim_noise(x, x, 1.5, VP, VP_NEXT)
    with pytest.raises(ValueError, match="lower"):
        ddim_noise(x, x, 1.0, VP_NEXT, VP)


@pytest.mark.parametrize("w", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_inner_strength_softens_the_rescale_and_no_further_than_a_plain_blend(w):
    """Rerender's: r = max(1 - w, strength sqrt(1 - w^2)) for a fresh reference noise."""
    n, n_ref = normal(4, 64, 64, seed=0), normal(4, 64, 64, seed=1)
    zero = torch.zeros_like(n)
    for strength in (0.0, 0.5, 0.9, 1.0):
        r = max(1 - w, strength * math.sqrt(1 - w * w))
        softened = fuse(zero, n, zero, n_ref, w, 0.0, VP, strength)
        assert torch.allclose(softened, VP.sigma * (w * n_ref + r * n), atol=1e-5)
        assert torch.allclose(fuse(zero, n, zero, n_ref, torch.tensor(w), 0.0, VP, strength), softened, atol=1e-5)
    exact = fuse(zero, n, zero, n_ref, 0.5, 0.0, VP)
    assert torch.equal(fuse(zero, n, zero, n_ref, 0.5, 0.0, VP, 1.0), exact)
    assert fuse(zero, n, zero, n_ref, 0.5, 0.0, VP, 0.9).std() < 0.97 * exact.std(), "less noise than the level has"


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_inner_strength_out_of_range_is_refused(strength):
    n = normal(4, 8, 8)
    with pytest.raises(ValueError, match="inner_strength"):
        fuse(n, n, n, n, 0.5, 0.0, VP, strength)
