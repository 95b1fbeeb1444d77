"""`warpfuse export`: bundles come out whole, and what is wrong is one line and exit code 2."""

import sys

import pytest
import torch
from safetensors.torch import save_file
from support.random_checkpoint import write_random_checkpoint
from typer.models import TyperInfo

from warpfuse import cli
from warpfuse.commands import exporting
from warpfuse.engine.bundle import load_autoencoder_bundle, load_bundle, load_flow_bundle
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
    for name, kind in (("encoder", taef2.TaefEncoder), ("decoder", taef2.TaefDecoder)):
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


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """SD 1.5 in small, where nothing is called like a sub-command."""
    return write_random_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny", "sd15")


@pytest.mark.parametrize("last", [True, False])
def test_any_other_first_argument_is_a_checkpoint_or_an_option_of_one(command, checkpoint, tmp_path, last):
    options = ("--size", "72x64", "--steps", "1", "--check", "-o", tmp_path / "out", "--prompt", "ink")
    code, out, err = command("export", *((*options, checkpoint) if last else (checkpoint, *options)))
    assert (code, err) == (0, "") and "sd15, 72x64, 1 steps" in out
    assert out.count("max error") == 1 and out.count("agrees") == 4  # a table, one line a network
    about = load_bundle(str(tmp_path / "out")).about
    assert (about.size, about.batch, about.text.default_prompt) == ((72, 64), 1, "ink")


def test_the_help_lists_every_source(command):
    code, out, _ = command("export", "--help")
    assert code == 0 and all(word in out for word in ("raft-small", "taef2", "SOURCE"))


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"--to": "onnx,openvino"}, "'openvino' is not known; expected some of onnx, torch, tensorrt-rtx, tensorrt"),
        ({"--gpu": "sm89"}, "--gpu sm89: nothing is built for a card"),
        ({"--dtype": "int8"}, "--dtype int8: expected fp16, bf16 or fp32"),
        ({"--lora": "none.safetensors:0.5"}, "none.safetensors is no file"),
        ({"--size": "70x64"}, "multiples of 8"),
        ({"--steps": "9"}, "--steps"),
        ({"--solver": "magic"}, "no solver is called 'magic'"),
        ({"--family": "sd15"}, "for a single .safetensors file"),
        ({"--vae": "none"}, "expected taesd, full, a folder"),
        ({"--prediction": "flow"}, "--prediction flow: expected epsilon, v, v-ztsnr"),
        ({"--clip-skip": "9"}, "--clip-skip 9: expected 1 to 2"),
        ({"--embedding": "none"}, "--embedding none: none is no file"),
        ({"--prompt-chunks": "9"}, "--prompt-chunks 9: expected 1 to 8"),
        ({"--attention": "lower"}, "--attention lower: expected low, low+, up, all"),
        ({"--attention": "low", "--references": "3"}, "--references 3: expected 1 to 2"),
        ({"--quantize": "fp4"}, "--quantize fp4: expected fp8 or int8"),
        ({"--quantize": "fp8", "--dtype": "bf16"}, "--quantize fp8 --dtype bf16: the rest of the UNet is float16"),
        ({"--calibrate": "x.mp4"}, "--calibrate x.mp4: nothing is quantised. Add --quantize fp8|int8"),
        ({"--quantize": "int8", "--calibrate": "none.mp4"}, "none.mp4"),
        ({"--cache-deep": "3"}, "--cache-deep 3: expected 1 to 2, layers of this UNet at the latent's size"),
        ({"--cache-deep": "1", "--attention": "low"}, "--cache-deep 1 with --attention: these need its deep part"),
        ({"--references": "1"}, "--references 1: no layer sees any. Add --attention low|low+|up|all"),
    ],
)
def test_a_checkpoint_asked_for_wrongly_is_one_line(command, checkpoint, tmp_path, changes, says):
    options = {"--size": "64x64", "--steps": "1", "-o": tmp_path / "out", **changes}
    code, _, err = command("export", checkpoint, *(part for option in options.items() for part in option))
    assert code == 2 and says in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_loras_are_kept_live_where_that_is_asked_for(command, checkpoint, tmp_path):
    options = ("--size", "64x64", "--steps", "1", "-o", tmp_path / "out", "--lora-live")
    code, _, err = command("export", checkpoint, *options)
    assert code == 2 and "give --lora FILE.safetensors too" in err and not (tmp_path / "out").exists()
    halves = {"down": torch.randn(3, 4, 3, 3), "up": torch.randn(32, 3, 1, 1)}
    save_file({f"lora_unet_conv_in.lora_{half}.weight": halves[half] for half in halves}, tmp_path / "ink.safetensors")
    code, out, err = command("export", checkpoint, *options, "--lora", f"{tmp_path / 'ink.safetensors'}:0.5")
    assert (code, err) == (0, "") and "ink.safetensors: live as 'ink' in 1 layers, at 0.5 unless told otherwise" in out
    (lora,) = load_bundle(str(tmp_path / "out")).about.loras
    assert (lora.name, lora.default, lora.text) == ("ink", 0.5, False)


def test_prompts_may_be_as_long_as_is_asked_for(command, checkpoint, tmp_path):
    options = ("--size", "64x64", "--steps", "1", "--dtype", "fp32", "-o", tmp_path / "out", "--prompt-chunks", "2")
    assert command("export", checkpoint, *options)[0] == 0
    assert load_bundle(str(tmp_path / "out")).about.text.chunks == 2


def test_what_a_checkpoint_does_not_say_is_given_beside_it(command, checkpoint, tmp_path):
    embedding = tmp_path / "cat.safetensors"
    save_file({"emb_params": torch.randn(2, 32)}, embedding)
    options = ("--size", "64x64", "--steps", "1", "--dtype", "fp32", "-o", tmp_path / "out", "--prediction", "v-ztsnr")
    options += ("--clip-skip", "2", "--embedding", f"{embedding}:furry", "--vae", checkpoint / "vae")
    code, out, _ = command("export", checkpoint, *options)
    about = load_bundle(str(tmp_path / "out")).about
    assert code == 0 and (about.prediction, about.levels.zero_terminal_snr) == ("v", True)
    assert len(about.text.inputs["tokens"].embeddings["furry"]) == 2 and "clip skip 2" in about.source
    assert "its scheduler says epsilon; taken as v" in out and "a prompt calls it furry, 2 vectors" in out


def test_a_check_that_fails_is_not_zero(command, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("warpfuse.export.diffusion.written.TOLERANCE", {"single": 1e-9})
    options = ("--size", "64x64", "--steps", "1", "--dtype", "fp32", "--check", "-o", tmp_path / "out")
    code, out, err = command("export", checkpoint, *options)
    assert code == 2 and "over the tolerance" in err and out.count("OVER THE TOLERANCE") == 4
    assert not (tmp_path / "out").exists()


def test_what_is_not_installed_is_named_with_its_remedy(command, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    code, _, err = command("export", checkpoint, "--size", "64x64", "--steps", "1", "-o", tmp_path / "out")
    assert code == 2 and "needs transformers: pip install 'warpfuse[cpu,export]'" in err
