"""The kernels of a card compute what the formulas say."""

import math

import pytest
import torch
from support.fields import constant_flow, texture

from warpfuse.stages import formulas
from warpfuse.stages.arithmetic import arithmetic
from warpfuse.stages.formulas.composite import shares_of
from warpfuse.stages.formulas.confidence_mask import PictureColours
from warpfuse.stages.formulas.fusion import fuse_clean
from warpfuse.stages.motion.settings import ConfidenceSettings

ROUNDING = 2**-23
SIZES = [(40, 56), (33, 47), (1, 9), (9, 1), (2, 3)]
LATENTS = [(1, 4, 33, 47), (2, 4, 9, 5), (1, 3, 4, 3), (1, 2, 3, 40), (1, 1, 48, 64), (3, 2, 2, 2)]


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def normal(*shape, seed=0, gain=1.0, offset=0.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * gain + offset


def near(got, wanted, bound):
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    return bool(((got - wanted).abs() <= bound * (1 + wanted.abs())).all())


def flow_of(h, w, rows=1, seed=0):
    """Some of it points out of the picture."""
    return normal(rows, 2, h, w, seed=seed, gain=2.0)


def sampling_error(w, h):
    """Positions of the formula are wrong by w 2^-23 px; its pictures change by at most 1 a pixel, and restoring their
    detail takes five samples."""
    return 5 * max(w, h) * ROUNDING + 16 * ROUNDING


def test_the_kernels_are_used(ops):
    from warpfuse.stages import cuda

    assert arithmetic("cuda:0") is cuda


def test_bytes_become_planes_and_planes_bytes_to_the_bit(ops):
    pixels = (random(33, 47, 3) * 256).to(torch.uint8)
    assert torch.equal(ops.planes_of(pixels), formulas.planes_of(pixels))
    for channels in (3, 4):
        rgb = normal(1, channels, 33, 47, gain=0.5, offset=0.5)
        rgb[0, 0, 0] = torch.arange(47) / 510  # halves of levels
        wanted = formulas.bytes_of(rgb)
        assert torch.equal(ops.bytes_of(rgb), wanted) and wanted.min() == 0 and wanted.max() == 255
    assert not torch.equal(ops.bytes_of(rgb), formulas.bytes_of(rgb + 1 / 255)), "control: a level more"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["sharp", "bicubic", "bilinear", "nearest"])
@pytest.mark.parametrize("rows, flows", [(1, 1), (2, 2), (3, 1)])
def test_it_warps_as_the_formula(ops, size, mode, rows, flows):
    x = torch.cat([texture(*size, seed) for seed in range(rows)])
    flow = flow_of(*size, flows)
    bound, wanted = sampling_error(*size), formulas.warp(x, flow, mode)
    assert near(ops.warp(x, flow, mode), wanted, bound)
    assert near(ops.warp_picture(x, flow, mode), wanted.clamp(0, 1), bound)
    if min(size) > 2 and mode != "nearest":
        assert not near(ops.warp(x, flow * 1.01, mode), wanted, bound), "control: a little farther"


def test_a_whole_step_is_exact_at_any_size(ops):
    x = texture(33, 47)
    for mode in ("sharp", "bicubic", "bilinear"):
        assert torch.equal(ops.warp(x, constant_flow(33, 47, 2, -1), mode)[..., 1:, :-2], x[..., :-1, 2:])


def test_a_flow_that_is_no_number_points_nowhere_else(ops):
    rgb, flow = texture(16, 24), torch.zeros(1, 2, 16, 24)
    flow[..., 4:6, 4:6] = torch.tensor([float("nan"), float("inf")])
    flow[..., 8:10, 4:6] = -1e30
    for mode in ("sharp", "bicubic", "bilinear"):
        assert torch.equal(ops.warp_picture(rgb, flow, mode)[..., 12:, :], rgb[..., 12:, :])
    ops.confidence(flow, -flow, rgb, rgb, ConfidenceSettings().limits)


@pytest.mark.parametrize("size", [(64, 96), (41, 57), (50, 100), (20, 24), (16, 120)])
def test_it_resizes_flow_as_the_formula(ops, size):
    flow, bound = flow_of(40, 56, 2), 10 * 56 * ROUNDING  # it changes by up to ten a pixel
    wanted = formulas.resize_flow(flow, size)
    assert near(ops.resize_flow(flow, size), wanted, bound)
    assert not near(ops.resize_flow(flow, size), formulas.resize_flow(flow.flip(1), size), bound), "control: y before x"


@pytest.mark.parametrize("whole", [(64, 96), (33, 47), (45, 91), (200, 301), (12, 12)])
@pytest.mark.parametrize("size", [(12, 12), (12, 23), (33, 47)])
def test_it_downscales_as_the_formula(ops, whole, size):
    size = min(size[0], whole[0]), min(size[1], whole[1])
    rgb = texture(*whole)
    bound = sampling_error(*whole)
    assert near(ops.resized(rgb, size), formulas.resized(rgb, size), bound)
    for cell in (1, 2, 5):
        (gray, small), (wanted, wanted_small) = ops.seen(rgb, size, cell), formulas.seen(rgb, size, cell)
        assert near(small, wanted_small, bound)
        assert (gray.int() - wanted.int()).abs().max() <= 1 and (gray != wanted).float().mean() < 0.01
    assert not near(ops.resized(rgb, size), formulas.resized(rgb.flip(-1), size), bound), "control: mirrored"


def scene(size, rows=1):
    """Flow and its inverse that agree here and not there, two pictures likewise."""
    flow = constant_flow(*size, 1.3, -0.6) + normal(rows, 2, *size) * 0.3
    back = constant_flow(*size, -1.3, 0.6) + normal(rows, 2, *size, seed=1) * 0.6
    cur = torch.cat([texture(*size, seed) for seed in range(rows)])
    prev = formulas.warp(cur, constant_flow(*size, -1.3, 0.6), "bilinear")
    return flow, back, cur, (prev + normal(rows, 3, *size, seed=2) * 0.2).clamp(0, 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("softness", [0.0, 0.5])
@pytest.mark.parametrize("check", ["squared", "norm", "off"])
def test_it_trusts_what_the_formula_trusts(ops, size, softness, check):
    settings = ConfidenceSettings(check=check, softness=softness)
    fields, limits = scene(size, 2), settings.limits
    got, coverage = ops.confidence(*fields, limits)
    # A pixel at a threshold may be on either side of it: so by a little less and a little more of each threshold.
    less, more = (
        formulas.confidence(
            *fields, limits._replace(offset=limits.offset * by, slope=limits.slope * by, photometric=0.12 * by)
        )[0]
        for by in (1 - 1e-3, 1 + 1e-3)
    )
    assert (got >= less - 1e-6).all() and (got <= more + 1e-6).all()
    assert near(coverage, got.mean((1, 2, 3)), 4 * ROUNDING)
    if size == (40, 56):
        assert 0.02 < float(got.mean()) < 0.95, "both kinds of pixels are there"
        wide = formulas.confidence(*fields, limits._replace(photometric=0.15))[0]
        assert (got < wide - 1e-3).any(), "control: what another threshold trusts"
    unchecked = ops.confidence(fields[0], None, *fields[2:], limits)[0]
    assert torch.equal(unchecked, ops.confidence(*fields, limits._replace(check="off"))[0])


@pytest.mark.parametrize("size", [(40, 56), (33, 47), (1, 9), (5, 2)])
@pytest.mark.parametrize("dilate, feather", [(0, 0), (1, 0), (0, 1), (2, 2), (1, 3), (8, 8), (9, 1), (2, 11)])
def test_it_grows_distrust_as_the_formula(ops, size, dilate, feather):
    m = (random(2, 1, *size) * 1.5).clamp(0, 1)
    m[..., size[0] // 2, size[1] // 2] = 0
    bound = 32 * ROUNDING
    wanted = formulas.grown(m, dilate, feather)
    assert near(ops.grown(m, dilate, feather), wanted, bound)
    if dilate + feather and min(size) > 2:
        assert not near(wanted, formulas.grown(m, dilate + 1, feather), bound), "control: a pixel more"


@pytest.mark.parametrize("growth", [(0, 0), (2, 1), (9, 2)])
@pytest.mark.parametrize("unique", [True, False])
@pytest.mark.parametrize("other_shot", [True, False])
def test_the_trust_is_that_of_the_formula(ops, growth, unique, other_shot):
    flow, back, cur = scene((40, 56))[:3]
    prev = formulas.warp(cur, constant_flow(40, 56, -1.3, 0.6), "bilinear")
    prev[..., 8:12, 8:12] = 1
    told = torch.ones(1, 1, 40, 56) if unique else None
    if told is not None:
        told[..., 30:, 5:9] = 0
    now, before = PictureColours(cur, random(512)), PictureColours(prev, random(512, seed=1 if other_shot else 0))
    now, before = (PictureColours(rgb, colours / colours.sum()) for rgb, colours in (now, before))
    settings = ConfidenceSettings(cut_coverage=1.0, cut_colour=0.1, check="off")
    arguments = flow, back, told, now, before, settings.limits, growth, settings.cut
    wanted = formulas.trusted(*arguments)
    width = settings.softness * settings.photometric  # of the fall of the confidence, in units of a picture
    assert near(ops.trusted(*arguments), wanted, sampling_error(40, 56) / width)
    assert bool(wanted.any()) is not other_shot, "the control: other colours"


@pytest.mark.parametrize("norm", [math.inf, 1.0, 2.0, 3.5])
@pytest.mark.parametrize("factor", [1, 2, 8])
def test_it_reduces_trust_to_cells_as_the_formula(ops, norm, factor):
    trust = random(2, 1, 24, 40)
    wanted = formulas.reduce_to_latent(trust, factor, norm)
    assert near(ops.reduce_to_latent(trust, factor, norm), wanted, 64 * ROUNDING)
    if factor > 1:
        assert not near(wanted, formulas.reduce_to_latent(trust, factor, 4.0), 64 * ROUNDING), "control: another norm"
    with pytest.raises(ValueError, match="multiples"):
        ops.reduce_to_latent(trust, 7, norm)


@pytest.mark.parametrize("every", [1, 3])
def test_it_counts_colours_as_the_formula(ops, every):
    rgb = texture(33, 47)
    wanted = formulas.colour_histogram(rgb, every)
    assert near(ops.colour_histogram(rgb, every), wanted, ROUNDING)
    assert not near(wanted, formulas.colour_histogram(rgb.flip(1), every), ROUNDING), "control: blue before red"


@pytest.mark.parametrize("shape", LATENTS)
@pytest.mark.parametrize("gain", [0.5, 3.0])
def test_the_entry_lock_is_that_of_the_formula(ops, shape, gain):
    z, z_ref, bound = normal(*shape, offset=2.0), normal(*shape, seed=1, gain=gain, offset=-3.0), 32 * ROUNDING
    wanted = formulas.lock_to_source(z_ref.double(), z.double()).float()
    assert near(ops.lock_to_source(z_ref, z), wanted, bound)
    assert not near(ops.lock_to_source(z_ref, z), formulas.lock_to_source(z_ref, z * 1.001), bound), "control"


@pytest.mark.parametrize("shape", [shape for shape in LATENTS if shape[0] == 1])
@pytest.mark.parametrize("locked", [True, False])
@pytest.mark.parametrize(
    "numbers", [(1.0, 0.6, 0.8, 1.0), (0.0, 0.6, 0.8, 0.9), (-0.5, 1.0, 9.0, 1.0), (0.0, 1.0, 0.0, 1.0)]
)
def test_entry_fusion_is_that_of_the_formula(ops, shape, locked, numbers):
    """The same noise for both, fresh noise softened, noises that oppose each other in sigma space, and none."""
    z, z_ref, n = normal(*shape, offset=2.0), normal(*shape, seed=1, gain=0.5), normal(*shape, seed=2)
    n_ref = n if numbers[0] == 1 else normal(*shape, seed=3)
    trust, weight, bound = random(1, 1, *shape[2:]), torch.tensor(0.9), 64 * ROUNDING
    arguments = z, n, z_ref, n_ref, trust, weight, *numbers, locked
    wide = formulas.fuse_at_entry(*(one.double() for one in arguments[:6]), *numbers, locked)
    got = ops.fuse_at_entry(*arguments)
    assert near(got, wide.float(), bound)
    assert not near(got, formulas.fuse_at_entry(*arguments[:-1], not locked), bound), "control: the other lock"


NUMBERS = [(1.0, 0.2, 0.2, 0.5), (0.6, 0.7, 0.2, 0.5), (1.0, 0.2, 0.2, 0.01), (1.0, 0.2, 0.9, 0.5)]


@pytest.mark.parametrize("shape", [shape for shape in LATENTS if shape[0] == 1])
@pytest.mark.parametrize("numbers", NUMBERS, ids=["as it is", "other rates", "drifting", "covered"])
def test_the_exit_lock_is_that_of_the_formula_from_frame_to_frame(ops, shape, numbers):
    trust, weight, bound = random(1, 1, *shape[2:]), torch.tensor(0.7), 64 * ROUNDING
    trust[..., :1] = 0
    gain = wide_gain = None
    for k in range(3):
        x0, x0_ref = normal(*shape, seed=k, offset=3.0), normal(*shape, seed=9 + k, gain=0.5 + 0.3 * k, offset=3.0)
        got, after = ops.fuse_at_exit(x0, x0_ref, trust, weight, gain, *numbers)
        wide = (one.double() for one in (x0, x0_ref, trust, weight))
        wanted, wide_gain = formulas.fuse_at_exit(*wide, wide_gain, *numbers)
        assert near(got, wanted.float(), bound) and near(after, wide_gain.float(), bound)
        assert torch.equal(got[..., :1], x0[..., :1]), "to the bit where nothing is trusted"
        fused = fuse_clean(x0, x0_ref, trust * weight)
        alone = ops.lock_to_prediction(fused, x0, trust, gain, *numbers)
        assert near(alone[0], got, bound) and near(alone[1], after, bound)
        gain = after
    less = formulas.fuse_at_exit(x0, x0_ref, trust, weight * 0.99, gain, *numbers)[0]
    assert not near(got, less, bound), "control: a little less of it"


def test_nothing_trusted_leaves_the_prediction(ops):
    x0, x0_ref, nowhere = normal(1, 3, 8, 12), normal(1, 3, 8, 12, seed=1), torch.zeros(1, 1, 8, 12)
    got, gain = ops.fuse_at_exit(x0, x0_ref, nowhere, torch.tensor(0.9), None, 1.0, 0.2, 0.2, 0.5)
    assert torch.equal(got, x0) and torch.isfinite(gain).all()


def test_what_is_no_number_stays_in_its_channel_and_frame(ops):
    numbers, trust, one = (1.0, 0.2, 0.2, 0.5), torch.ones(1, 1, 8, 12), torch.tensor(1.0)
    x0, broken = normal(1, 3, 8, 12), normal(1, 3, 8, 12, seed=1)
    broken[0, 1, 2, 2] = float("nan")
    out, gain = ops.fuse_at_exit(x0, broken, trust, one, None, *numbers)
    assert out.isnan().any(-1).any(-1).tolist() == [[False, True, False]]
    assert torch.isfinite(ops.fuse_at_exit(x0, x0, trust, one, gain, *numbers)[0]).all()
    assert ops.lock_to_source(x0, broken).isnan().any(-1).any(-1).tolist() == [[False, True, False]]


@pytest.mark.parametrize("size", SIZES)
def test_it_composes_paint_and_lines_as_the_formula(ops, size):
    paint, cover, table = random(1, 3, *size), random(1, 1, *size, seed=1), random(5, 5, 5, 3, seed=2)
    shares, bound = shares_of((0.1, 0.2, 0.3), 0.9, 0.8), 64 * ROUNDING
    for laid in (cover, None):
        for colours in (table, None):
            wanted = formulas.composed(paint, laid, colours, shares)
            assert near(ops.composed(paint, laid, colours, shares), wanted, bound)
    flipped = formulas.composed(paint, cover, table.flip(-1), shares)
    assert not near(ops.composed(paint, cover, table, shares), flipped, bound), "control: blue before red"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_it_cores_as_the_formula(ops, size, channels):
    x, past, trust = random(1, channels, *size), random(1, channels, *size, seed=1), random(1, 1, *size, seed=2)
    numbers, bound = torch.tensor([0.8, 0.2]), 8 * ROUNDING
    wanted = formulas.cored(x, past, trust, numbers)
    assert near(ops.cored(x, past, trust, numbers), wanted, bound)
    assert not near(ops.cored(x, past, trust, numbers.flip(0)), wanted, bound), "control: weight and limit exchanged"


@pytest.mark.parametrize("size", SIZES)
def test_it_sharpens_fused_lines_as_the_formula(ops, size):
    drawn = (random(1, 1, *size) > 0.7).float()
    fused = formulas.warp(drawn, constant_flow(*size, 0.5, 0.5), "bilinear")
    wanted, bound = formulas.as_sharp_as(drawn, fused), 64 * ROUNDING
    assert near(ops.as_sharp_as(drawn, fused), wanted, bound)
    if min(size) > 2:
        assert not near(fused, wanted, bound), "control: unsharpened"


@pytest.mark.parametrize("size", SIZES)
def test_it_fuses_lines_as_the_formula(ops, size):
    cover, past, trust = random(1, 1, *size), random(1, 1, *size, seed=1), random(1, 1, *size, seed=2)
    numbers, bound = torch.tensor([0.7, 0.8, 0.05]), 64 * ROUNDING
    found = {coring: formulas.fuse_lines(cover, past, trust, numbers, coring) for coring in (True, False)}
    for coring, wanted in found.items():
        got = ops.fuse_lines(cover, past, trust, numbers, coring)
        assert near(got, wanted, bound) and not near(got, found[not coring], bound), "control: the other"


def test_tensors_that_lie_elsewhere_or_are_of_another_type_are_read_as_they_are(ops):
    z, z_ref = normal(1, 3, 8, 12), normal(1, 3, 8, 12, seed=1)
    wanted = ops.lock_to_source(z_ref, z)
    half = ops.lock_to_source(z_ref.half(), z.half())
    assert half.dtype == torch.float16 and (half.float() - wanted).abs().max() < 0.01
    flow, x = flow_of(16, 24), texture(24, 16)
    turned = x.mT
    assert not turned.is_contiguous() and torch.equal(ops.warp(turned, flow), ops.warp(turned.contiguous(), flow))


def test_nothing_that_comes_in_is_written(ops):
    fields = scene((16, 24))
    before = [field.clone() for field in fields]
    ops.confidence(*fields, ConfidenceSettings().limits)
    ops.warp(fields[2], fields[0])
    ops.fuse_at_exit(fields[2], fields[3], fields[2][:, :1].contiguous(), torch.tensor(0.5), None, 1.0, 0.2, 0.2, 0.5)
    assert all(torch.equal(a, b) for a, b in zip(fields, before, strict=True))
