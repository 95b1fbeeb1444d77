"""OpenCV's flow at other sizes, against torch's."""

import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

from warpfuse.stages.cpu.flow_resize import enlarged, in_cells


def field(h, w):
    """[h, w, 2] as OpenCV lays it, and the same in planes."""
    planes = torch.randn(1, 2, h, w, generator=torch.Generator().manual_seed(0)) * 5
    return planes[0].permute(1, 2, 0).contiguous().numpy(), planes


@pytest.mark.parametrize(
    "size, wanted", [((48, 48), (64, 64)), ((27, 48), (72, 128)), ((12, 12), (12, 12)), ((1, 5), (3, 8))]
)
def test_an_enlarged_flow_is_in_the_new_pixels(size, wanted):
    vectors, planes = field(*size)
    gains = torch.tensor([wanted[1] / size[1], wanted[0] / size[0]]).view(1, 2, 1, 1)
    truth = interpolate(planes, wanted, mode="bilinear", align_corners=False) * gains
    assert (enlarged(vectors, wanted) - truth).abs().max() < 2e-5
    if size != wanted:
        assert (enlarged(vectors, wanted) - truth / gains).abs().max() > 0.1, "control: the old pixels"


@pytest.mark.parametrize("cell", [1, 2, 3, 8])
def test_cells_are_means_in_their_own_pixels(cell):
    vectors, planes = field(48, 72)
    truth = avg_pool2d(planes, cell) / cell
    got = in_cells(vectors, (48 // cell, 72 // cell))
    assert (got - truth).abs().max() < 1e-5
    if cell > 1:
        assert (got - planes[..., ::cell, ::cell] / cell).abs().max() > 0.1, "control: one vector of it"


@pytest.mark.parametrize("cell", [2, 3])
def test_cells_that_are_cut_off_are_means_of_what_is_there(cell):
    vectors, planes = field(3 * cell + 1, 4 * cell + 1)
    got = in_cells(vectors, (4, 5))
    scale = torch.tensor([5 / (4 * cell + 1), 4 / (3 * cell + 1)])
    assert torch.allclose(got[0, :, 3, 4], planes[0, :, -1, -1] * scale, atol=1e-6)
    assert torch.allclose(got[0, :, 0, 4], planes[0, :, :cell, -1].mean(1) * scale, atol=1e-6)
