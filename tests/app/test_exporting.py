"""`warpfuse export`: bundles come out whole, and what is wrong is one line and exit code 2."""

import pytest
import torch
from typer.models import TyperInfo

from warpfuse import cli, exporting
from warpfuse.engine.bundle import load_autoencoder_bundle, load_flow_bundle
from warpfuse.export import taef2
from warpfuse.export.raft_small import RaftSmall


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """The sub-application under the command, wherever the command itself stands with it."""
    groups = [group for group in cli.app.registered_groups if group.name != "export"]
    monkeypatch.setattr(cli.app, "registered_groups", [*groups, TyperInfo(exporting.app, name="export")])


@pytest.fixture
def weights(tmp_path):
    """As published: keys under `module.`, seeded random values."""
    torch.manual_seed(0)
    path = tmp_path / "raft-small.pth"
    torch.save({f"module.{key}": value for key, value in RaftSmall().state_dict().items()}, path)
    return path


def test_raft_small_becomes_a_flow_bundle(command, weights, tmp_path):
    arguments = ("--weights", weights, "--size", "96x72", "--iterations", "1", "-o", tmp_path / "flow")
    code, out, _ = command("export", "raft-small", *arguments)
    assert code == 0 and "96x72" in out
    about = load_flow_bundle(str(tmp_path / "flow")).about
    assert about.size == (96, 72) and about.iterations == 1 and about.licence == "BSD-3-Clause"


def test_taef2_becomes_an_autoencoder(command, tmp_path):
    torch.manual_seed(0)
    for name, kind in (("encoder", taef2.Encoder), ("decoder", taef2.Decoder)):
        torch.save(kind().half().state_dict(), tmp_path / f"{name}.pth")
    halves = ("--encoder", tmp_path / "encoder.pth", "--decoder", tmp_path / "decoder.pth")
    code, _, _ = command("export", "taef2", *halves, "--size", "32x24", "-o", tmp_path / "tiny")
    assert code == 0
    assert load_autoencoder_bundle(str(tmp_path / "tiny")).about.size == (32, 24)


@pytest.mark.parametrize(
    "size, iterations, says",
    [("96", "1", "expected WIDTHxHEIGHT"), ("32x32", "1", "64 pixels or more"), ("96x72", "0", "iterations")],
)
def test_a_bad_figure_is_one_line(command, weights, tmp_path, size, iterations, says):
    arguments = ("--weights", weights, "--size", size, "--iterations", iterations, "-o", tmp_path / "flow")
    code, _, err = command("export", "raft-small", *arguments)
    assert code == 2 and says in err and err.count("\n") == 1
    assert not (tmp_path / "flow").exists()


def test_missing_weights_are_one_line(command, tmp_path):
    arguments = ("--weights", tmp_path / "none.pth", "--size", "96x72", "-o", tmp_path / "flow")
    code, _, err = command("export", "raft-small", *arguments)
    assert code == 2 and "No such file" in err and err.count("\n") == 1


def test_a_folder_that_is_no_bundle_is_left_alone(command, weights, tmp_path):
    dear = tmp_path / "photographs" / "dear.jpg"
    dear.parent.mkdir()
    dear.write_bytes(b"...")
    arguments = ("--weights", weights, "--size", "96x72", "--iterations", "1", "-o", dear.parent)
    code, _, err = command("export", "raft-small", *arguments)
    assert code == 2 and "not a bundle" in err
    assert [path.name for path in dear.parent.iterdir()] == ["dear.jpg"]
