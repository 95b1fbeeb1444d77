"""The kernels over latents say what torch says of the same in float64, and to the bit where a law asks for that."""

import math

import pytest
import torch

from warpfuse.stages.cpu import latents
from warpfuse.stages.motion.confidence import reduce_to_latent
from warpfuse.stages.solvers.network import split, split_clean
from warpfuse.stages.solvers.pair import CLEAN, Level, clean_and_noise, compose, fuse

SHAPES = [(1, 32, 64, 64), (1, 4, 33, 47), (3, 4, 5, 7), (2, 1, 1, 3)]
VP = Level(0.6, 0.8, 600.0)
ROUNDINGS = 6 * 2**-23


def normal(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def near(got, wanted):
    return got.dtype == torch.float32 and bool((got - wanted).abs().max() <= ROUNDINGS * (1 + wanted.abs().max()))


def parts(shape, rows):
    """x0, n, x0_ref, n_ref and a weight, both ends of it included, for all rows or each its own."""
    weight = torch.rand((rows, 1, *shape[2:]), generator=torch.Generator().manual_seed(5))
    weight[..., :1], weight[..., -1:] = 0, 1
    return *(normal(shape, seed) for seed in range(4)), weight


def test_what_kernels_read_is_float32_on_the_cpu_in_order():
    x = torch.ones(1, 4, 6, 8)
    assert latents.takes_alike(x, x.clone()) and latents.takes_map(x[:, :1].clone(), x)
    for other in (x.double(), x.half(), x.mT.contiguous().mT, x.to("meta"), x.clone().requires_grad_()):
        assert not latents.takes(other) and not latents.takes_alike(x, other)
    assert not latents.takes_alike(x, x[:, :2].clone())
    for weight in (torch.tensor(0.5), torch.ones(6, 8), torch.ones(1, 4, 6, 8), torch.ones(2, 1, 6, 8)):
        assert not latents.takes_map(weight, x)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rho", [-0.4, 0.0, 0.7, 1.0])
@pytest.mark.parametrize("inner_strength", [1.0, 0.9])
def test_fusion_is_that_of_torch(shape, rho, inner_strength):
    for rows in {1, shape[0]}:
        given = parts(shape, rows)
        wide = [x.double() for x in given]
        for level in (VP, CLEAN):
            got = fuse(*given, rho, level, inner_strength)
            assert near(got, fuse(*wide, rho, level, inner_strength))
            assert not near(got, fuse(*wide[:4], 0.999 * wide[4], rho, level, inner_strength)), "control: the weight"
        wrong = fuse(*wide, rho - 0.01, VP, inner_strength)
        assert inner_strength < 1 or not near(fuse(*given, rho, VP, inner_strength), wrong), "control: the correlation"


@pytest.mark.parametrize("shape", SHAPES)
def test_fusion_with_one_noise_is_that_of_torch(shape):
    x0, n, x0_ref, _, weight = parts(shape, shape[0])
    wide = n.double()
    wanted = fuse(x0.double(), wide, x0_ref.double(), wide, weight.double(), 1.0, VP)
    got = fuse(x0, n, x0_ref, n, weight, 1.0, VP)
    assert near(got, wanted)
    assert not near(fuse(x0, n, x0_ref, n, weight, 0.9, VP), wanted), "control: noises held to be others"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rho", [0.0, 0.7, 1.0])
def test_the_ends_of_a_map_are_exact(shape, rho):
    x0, n, x0_ref, n_ref, weight = parts(shape, 1)
    for noise in (n, n_ref):
        got = fuse(x0, n, x0_ref, noise, weight, rho, VP)
        assert torch.equal(got[..., 0], compose(x0, n, VP)[..., 0])
        assert torch.equal(got[..., -1], compose(x0_ref, noise, VP)[..., -1])
        assert torch.equal(fuse(x0, n, x0_ref, noise, weight, rho, CLEAN)[..., 0], x0[..., 0])
        assert not torch.equal(got[..., 1:-1], compose(x0, n, VP)[..., 1:-1]), "the control"


def test_a_level_is_composed_as_torch_rounds_it():
    x0, n = normal(SHAPES[1], 0), normal(SHAPES[1], 1)
    alpha, sigma = 1 / 3, math.sqrt(8) / 3
    got = compose(x0, n, Level(alpha, sigma, 1.0))
    assert torch.equal(got, alpha * x0 + sigma * n)
    assert not torch.equal(got, torch.addcmul(alpha * x0, torch.tensor(sigma), n).add(2**-24)), "the control"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("prediction", ["epsilon", "v", "sample", "flow"])
def test_a_pair_is_that_of_torch(shape, prediction):
    level = Level(0.4, 0.6, 600.0) if prediction == "flow" else VP
    x, output = normal(shape, 0), normal(shape, 1)
    wanted = clean_and_noise(x.double(), output.double(), level, prediction)
    x0, n = split(x, output, level, prediction)
    assert near(x0, wanted[0]) and near(n, wanted[1])
    assert not near(x0, wanted[1]) and not near(n, wanted[0]), "the control"
    last, nobodys = split_clean(x, output, level, prediction)
    assert torch.equal(last, x0)
    assert nobodys.shape == n.shape and nobodys.dtype == n.dtype and bool(nobodys.isnan().all())


@pytest.mark.parametrize(
    "shape, factor", [((1, 1, 64, 96), 8), ((2, 1, 20, 35), 5), ((3, 1, 4, 6), 1), ((1, 1, 6, 9), 3)]
)
def test_trust_of_cells_is_that_of_torch(shape, factor):
    trust = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    got = reduce_to_latent(trust, factor, 2.0)
    assert near(got, reduce_to_latent(trust.double(), factor, 2.0))
    if factor > 1:
        assert not near(got, reduce_to_latent(trust.double(), factor, 2.01)), "control: another norm"


def test_what_is_no_number_stays_in_its_cell():
    x0, n, x0_ref, n_ref, weight = parts((1, 4, 8, 8), 1)
    x0[0, 1, 4, 4] = math.nan
    for noise, rho in ((n, 1.0), (n_ref, 0.3)):
        broken = fuse(x0, n, x0_ref, noise, weight, rho, VP).isnan().nonzero().tolist()
        assert broken == [[0, 1, 4, 4]]
    trust = torch.ones(1, 1, 8, 8)
    trust[0, 0, 3, 7] = math.nan
    assert reduce_to_latent(trust, 4, 2.0).isnan().nonzero().tolist() == [[0, 0, 0, 1]]
