"""A `.pt2` the torch backend opens: same names, same figures, no weight that is not used, no path of this machine."""

import errno
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from torch import nn

from warpfuse.engine.pt2_archive import check_archive
from warpfuse.export import torch_program
from warpfuse.export.agreement import differences
from warpfuse.export.onnx_writing import reference
from warpfuse.export.torch_program import run_program, write_program


class Network(nn.Module):
    """Two inputs, two outputs, a convolution, and a layer that is never called."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.unused = nn.Linear(512, 512)
        self.register_buffer("number", torch.arange(3))

    def forward(self, picture, timestep):
        return self.conv(picture), torch.sin(timestep * 3) + self.number[1]


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network().eval()


INPUTS = {
    "picture": torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)),
    "timestep": torch.tensor([998.75]),
}


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_it_gives_what_the_network_does_by_name(network, tmp_path, dtype, tolerance):
    wanted = reference(network, INPUTS, ["y", "z"])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    write_program(tmp_path / "n.pt2", network, INPUTS, ["y", "z"], stored=dtype, compute=dtype)
    found = run_program(tmp_path / "n.pt2", INPUTS)
    assert list(found) == ["y", "z"] and found["y"].dtype == torch.float32
    worst, _ = differences({"y": found["y"]}, {"y": wanted["y"]})
    assert worst < tolerance and (dtype == torch.float32 or worst > 0)  # it does compute in the type
    assert torch.allclose(found["z"], wanted["z"], atol=1e-5)  # sines of a timestep stay in single precision
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_weights_stored_as_halves_compute_in_single_precision(network, tmp_path):
    write_program(tmp_path / "n.pt2", network, INPUTS, ["y", "z"], stored=torch.float16)
    found = run_program(tmp_path / "n.pt2", INPUTS)
    rounded = Network().eval()
    rounded.load_state_dict({name: value.half() if value.is_floating_point() else value
                             for name, value in network.state_dict().items()})  # fmt: skip
    worst, _ = differences(found, reference(rounded, INPUTS, ["y", "z"]))
    assert worst < 1e-6 < differences(found, reference(network, INPUTS, ["y", "z"]))[0]  # control: not rounded


def test_the_file_holds_what_is_used_and_nothing_of_this_machine(network, tmp_path):
    path = tmp_path / "n.pt2"
    write_program(path, network, INPUTS, ["y", "z"])
    check_archive(path)
    data = path.read_bytes()
    assert len(data) < network.unused.weight.numel() * 4
    assert str(Path(__file__).parent).encode() not in data


def test_a_full_disk_is_noticed_before_torch_writes(network, tmp_path, monkeypatch):
    """Torch's own writer would abort the process."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(torch_program.shutil, "disk_usage", lambda place: usage(1 << 40, 0, 1 << 20))
    with pytest.raises(OSError, match="No space left") as caught:
        write_program(tmp_path / "n.pt2", network, INPUTS, ["y", "z"])
    assert caught.value.errno == errno.ENOSPC and list(tmp_path.iterdir()) == []
