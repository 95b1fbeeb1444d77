"""The embedded bundle's training at toy size: it ends in a bundle that loads, and a seed gives the same one again."""

import contextlib
import json
import shutil

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from warpfuse.engine.bundle import load_bundle
from warpfuse.engine.bundle_writing import write_bundle
from warpfuse.export.embedded import batches, calibration
from warpfuse.export.embedded.__main__ import main
from warpfuse.export.embedded.autoencoder import (
    LATENT_CHANNELS,
    Decoder,
    Encoder,
    start_from_principal_components,
    whiten_exactly,
)
from warpfuse.export.embedded.batches import pairs, shifted, window
from warpfuse.export.embedded.bundle import read as read_bundle
from warpfuse.export.embedded.levels import alphas_and_sigmas
from warpfuse.export.embedded.losses import grid_loss, unsteadiness
from warpfuse.export.embedded.onnx_files import decoder_onnx, encoder_onnx, read_weights, round_to_half, unet_onnx
from warpfuse.export.embedded.photographs import training_set
from warpfuse.export.embedded.plates import Plate
from warpfuse.export.embedded.schedule import Length, learning_rate
from warpfuse.export.embedded.styles import STYLES, one_hot
from warpfuse.export.embedded.unet import UNet
from warpfuse.export.onnx_writing import ExportError

TOLERANCE = 2e-4  # torch against ONNX Runtime, both in single precision; latents are of deviation 1


def cloudy(height, width, seed):
    """A picture [h,w,3] in [0,1] with the spectrum of a photograph, amplitude 1/f."""
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    f = np.hypot(fy, fx)
    f[0, 0] = 1
    planes = [np.fft.ifft2(np.fft.fft2(rng.standard_normal((height, width))) / f).real for _ in range(3)]
    picture = np.stack(planes, 2) / np.std(planes)
    return (0.5 + 0.2 * picture).clip(0, 1).astype(np.float32)


def as_input(picture):
    return torch.from_numpy(picture).permute(2, 0, 1)[None].contiguous()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i in range(2):
        cv2.imwrite(str(folder / f"{i}.png"), (255 * cloudy(144, 160, i)).astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A stand-in with the interface of multistyle26.onnx: every style adds its own colour to the negative."""
    colours = np.random.default_rng(0).uniform(-0.4, 0.4, (26, 3)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["style_weights", "colours"], ["colour"]),
        helper.make_node("Reshape", ["colour", "shape"], ["plane"]),
        helper.make_node("Sub", ["one", "image"], ["negative"]),
        helper.make_node("Add", ["negative", "plane"], ["stylized"]),
    ]
    single = TensorProto.FLOAT
    picture = [1, 3, "h", "w"]
    onnx_graph = helper.make_graph(
        nodes,
        "stand_in",
        [
            helper.make_tensor_value_info("image", single, picture),
            helper.make_tensor_value_info("style_weights", single, [26]),
        ],
        [helper.make_tensor_value_info("stylized", single, picture)],
        [
            numpy_helper.from_array(colours, "colours"),
            numpy_helper.from_array(np.array([1, 3, 1, 1]), "shape"),
            numpy_helper.from_array(np.float32(1), "one"),
        ],
    )
    path = tmp_path_factory.mktemp("teacher") / "multistyle26.onnx"
    onnx.save_model(helper.make_model(onnx_graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@contextlib.contextmanager
def small_calibration():
    """Pictures so small that the networks take no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "LONG_SIDES", (64, 72))
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory, photos, teacher):
    """seed -> folder of a bundle after two steps; each seed is trained once, `again` once more."""
    kept = {}

    def bundle(seed, again=False):
        if (seed, again) not in kept:
            out = tmp_path_factory.mktemp("trained") / "bundle"
            sizes = ["--variants", "1", "--pages", "1", "--shortest", "136", "--longest", "137"]
            steps = [
                "--steps-autoencoder",
                "2",
                "--steps-styles",
                "2",
                "--steps-unet",
                "2",
                "--batch",
                "4",
                "--seed",
                str(seed),
            ]
            given = ["--photos", photos, "--teacher", teacher, "--out", out, "--parts", "pictures", *sizes, *steps]
            with small_calibration():
                assert main([str(value) for value in given]) == 0
            kept[seed, again] = out
        return kept[seed, again]

    return bundle


def test_two_steps_give_a_bundle_that_loads_and_takes_odd_sizes(trained):
    bundle = load_bundle(str(trained(1)))
    assert list(bundle.about.styles) == [style.name for style in STYLES]
    networks = {kind: ort.InferenceSession(bundle.network(kind)) for kind in ("encoder", "unet", "decoder")}
    rgb = np.stack([cloudy(200, 72, i).transpose(2, 0, 1) for i in range(2)])
    z = networks["encoder"].run(None, {"rgb": rgb})[0]
    assert z.shape == (2, LATENT_CHANNELS, 25, 9)
    feed = {"x": z, "source": z, "level": np.float32([[0.6, 0.8]] * 2), "style": np.float32([one_hot(0)] * 2)}
    x0 = networks["unet"].run(None, feed)[0]
    assert x0.shape == z.shape
    out = networks["decoder"].run(None, {"latent": x0})[0]
    assert out.shape == rgb.shape
    assert out.min() >= 0
    assert out.max() <= 1


def test_a_seed_gives_the_same_weights_again(trained):
    def hashes(folder):
        return json.loads((folder / "bundle.json").read_text())["files"]

    assert hashes(trained(1)) == hashes(trained(1, again=True))
    assert set(hashes(trained(1)).values()).isdisjoint(hashes(trained(2)).values())  # the control


def test_the_unet_in_integers_can_be_made_again(trained, photos, tmp_path, capsys):
    """From the bundle alone, the same bytes as when it was trained; also where it had none."""
    shutil.copytree(trained(1), tmp_path / "bundle")
    files = json.loads((tmp_path / "bundle" / "bundle.json").read_text())["files"]
    bare = load_bundle(str(tmp_path / "bundle"))
    kept = bare.about.model_dump(exclude={"format", "files", "int8"})
    networks = {name: (bare.folder / name).read_bytes() for name in bare.about.networks.values()}
    write_bundle(tmp_path / "bundle", networks, **kept)
    given = ["--photos", photos, "--out", tmp_path / "bundle", "--parts", "int8"]

    def made(seed):
        with small_calibration():
            code = main([*map(str, given), "--seed", str(seed)])
        assert code == 0 and "unet.int8.onnx" in capsys.readouterr().out
        return json.loads((tmp_path / "bundle" / "bundle.json").read_text())["files"]

    assert made(1) == files
    assert load_bundle(str(tmp_path / "bundle")).in_precision("int8").network("unet").is_file()
    other = made(2)
    assert {name for name in files if files[name] != other[name]} == {"unet.int8.onnx"}, "control: other noise"


def test_integers_of_a_bundle_that_is_not_there_are_one_line(photos, tmp_path, capsys):
    assert main(["--photos", str(photos), "--out", str(tmp_path / "none"), "--parts", "int8"]) == 2
    assert "is not a bundle" in capsys.readouterr().err


def test_work_that_lies_there_is_not_trained_over(trained, photos, teacher, capsys):
    out = trained(1)
    arguments = ["--photos", str(photos), "--teacher", str(teacher), "--out", str(out)]
    assert main(arguments) == 2
    assert "--resume" in capsys.readouterr().err


@pytest.mark.parametrize("rounded", [True, False])
def test_torch_and_onnx_runtime_agree(rounded):
    """Within TOLERANCE at odd sizes; weights not rounded to what the file holds are the control that must fail."""
    torch.manual_seed(0)
    encoder, unet, decoder = Encoder().eval(), UNet(len(STYLES)).eval(), Decoder(clamp=True).eval()
    encoder.std.fill_(0.1)
    if rounded:
        for network in (encoder, unet, decoder):
            round_to_half(network)
    z = torch.randn(2, LATENT_CHANNELS, 45, 25)
    level, style = torch.tensor([[0.6, 0.8], [0.1, 0.995]]), torch.eye(len(STYLES))[:2]
    cases = [
        (encoder, encoder_onnx(encoder), {"rgb": as_input(cloudy(360, 200, 0))}),
        (unet, unet_onnx(unet, len(STYLES)), {"x": z, "source": torch.randn_like(z), "level": level, "style": style}),
        (decoder, decoder_onnx(decoder), {"latent": z}),
    ]
    gaps = []
    for network, data, feed in cases:
        with torch.no_grad():
            expected = network(*feed.values()).numpy()
        got = ort.InferenceSession(data).run(None, {name: value.numpy() for name, value in feed.items()})[0]
        assert got.shape == expected.shape
        gaps.append(np.abs(got - expected).max())
    assert bool(max(gaps) < TOLERANCE) is rounded


def test_large_weights_are_stored_in_half_precision():
    data = encoder_onnx(Encoder())
    stored = onnx.load_model_from_string(data).graph.initializer
    assert {t.data_type for t in stored if np.prod(t.dims) >= 512} == {TensorProto.FLOAT16}
    assert len(data) < 2.2 * sum(p.numel() for p in Encoder().parameters())


def test_the_start_is_the_best_linear_round_trip():
    """Components of deviation 1, and closer to the picture than its 4x4 means, which take 12 numbers a block of 16."""
    torch.manual_seed(0)
    encoder, decoder, rgb = Encoder(), Decoder(), torch.cat([as_input(cloudy(128, 128, i)) for i in range(4)])
    with torch.no_grad():
        before = (decoder(encoder(rgb)) - rgb).square().mean()
        start_from_principal_components(encoder, decoder, rgb)
        z = encoder.linear(rgb - 0.5)
        after = (nn.functional.pixel_shuffle(decoder.linear(z), 4) + 0.5 - rgb).square().mean()
    assert (z.std((0, 2, 3)) - 1).abs().max() < 0.02
    shrunk = nn.functional.interpolate(nn.functional.avg_pool2d(rgb, 4), scale_factor=4.0, mode="nearest")
    assert after < (shrunk - rgb).square().mean()  # 12 numbers a block
    assert after < 0.4 * before  # the control: random maps


def test_whitening_gives_mean_0_deviation_1_and_leaves_the_round_trip_alone():
    torch.manual_seed(0)
    encoder, decoder = Encoder().eval(), Decoder().eval()
    batches = [as_input(cloudy(96, 96, i)) for i in range(4)]
    with torch.no_grad():
        before = [decoder(encoder(rgb)) for rgb in batches]
        assert encoder(batches[0]).std() < 0.5  # the control: random weights are not white
        whiten_exactly(encoder, decoder, batches)
        z = torch.cat([encoder(rgb) for rgb in batches])
        after = [decoder(encoder(rgb)) for rgb in batches]
    assert z.mean((0, 2, 3)).abs().max() < 1e-3
    assert (z.std((0, 2, 3)) - 1).abs().max() < 1e-2
    assert max((a - b).abs().max() for a, b in zip(before, after, strict=True)) < 1e-4


def test_strength_0_is_the_source_bit_for_bit_whatever_the_weights():
    torch.manual_seed(0)
    unet, z = UNet(3), torch.randn(1, LATENT_CHANNELS, 9, 7)
    level = torch.tensor([[0.1, 0.995]])
    assert torch.equal(unet(torch.randn_like(z), z, level, torch.zeros(1, 3)), z)
    assert not torch.equal(unet(torch.randn_like(z), z, level, torch.eye(3)[:1]), z)


def test_levels_are_variance_preserving_and_end_nearly_in_noise():
    table = alphas_and_sigmas()
    assert torch.allclose(table.square().sum(1), torch.ones(1000))
    assert table[0, 1] < 0.03
    assert table[999, 0] == pytest.approx(0.0683, abs=1e-3)


def test_only_permissive_photographs_are_trained_on(tmp_path):
    licences = {"a": "CC0", "b": "CC-BY-SA-4.0 X", "c": "LGPLv3", "d": "CC-BY-4.0 Y", "e": "GPL-2+", "f": "unknown"}
    for name in licences:
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((8, 8, 3), ord(name), np.uint8))
    rows = [f"{name}.png\t8x8\tsomewhere\t{licence}" for name, licence in licences.items()]
    (tmp_path / "INDEX.tsv").write_text("\n".join(rows) + "\n")
    assert [chr(picture[0, 0, 0]) for picture in training_set(tmp_path, held_out=())] == ["a", "d"]
    with pytest.raises(ValueError, match="permissive licence"):
        training_set(tmp_path, held_out=("a.png", "d.png"))


def test_a_target_at_part_strength_lies_between_source_and_style(monkeypatch):
    monkeypatch.setattr(batches, "DIMMED", 0)
    source, styled = np.full((140, 140, 3), 51, np.uint8), np.full((140, 140, 3), 102, np.uint8)
    plate = Plate(np.stack([source, styled]), np.float32([[1, 0]]))
    _, target, vector = pairs([plate], 64, 128, np.random.default_rng(0))
    assert torch.allclose(target.mean((1, 2, 3)), 0.2 + 0.2 * vector.sum(1), atol=1e-5)
    assert ((vector.sum(1) < 1).float().mean() - 0.25).abs() < 0.2


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_pairs_are_dimmed_both_or_not_at_all(monkeypatch, share):
    monkeypatch.setattr(batches, "DIMMED", share)
    day = np.full((140, 140, 3), 204, np.uint8)
    source, target, _ = pairs([Plate(np.stack([day, day]), np.float32([[1]]))], 32, 128, np.random.default_rng(0))
    exposure, shown = source.mean((1, 2, 3)), target.mean((1, 2, 3))
    if not share:
        assert torch.allclose(exposure, torch.tensor(0.8)) and torch.allclose(shown, torch.tensor(0.8), atol=1e-5)
    else:
        assert (exposure < 0.57).all() and exposure.min() < 0.15
        dark = exposure < 0.2
        assert (shown[dark] < 0.65).all() and (shown >= exposure - 0.01).all()


def test_a_training_goes_on_from_a_bundle(trained, photos, teacher, tmp_path):
    begun = trained(1)
    unet = read_bundle(begun)[2]
    again = read_weights(UNet(len(STYLES)), begun / "unet.onnx")
    for one, other in zip(unet.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(ExportError, match="not a Decoder"):
        read_weights(Decoder(), begun / "unet.onnx")
    given = [
        "--photos",
        photos,
        "--teacher",
        teacher,
        "--out",
        tmp_path / "on",
        "--parts",
        "pictures",
        "--start",
        begun,
    ]
    given += ["--variants", 1, "--pages", 1, "--shortest", 136, "--longest", 137, "--steps-unet", 2, "--batch", 4]
    assert main([str(value) for value in given]) == 0
    files = [(folder / "encoder.onnx").read_bytes() for folder in (begun, tmp_path / "on")]
    assert files[0] == files[1], "encoder and decoder stay as they are"
    moved = read_bundle(tmp_path / "on")[2]
    assert not torch.equal(moved.leave.weight, unet.leave.weight)
    assert (moved.leave.weight - unet.leave.weight).abs().max() < 0.01, "it went on, not anew"


def test_a_shift_by_whole_pixels_moves_the_picture():
    rgb = as_input(cloudy(32, 40, 0))
    moved = shifted(rgb, torch.tensor([[3.0, -2.0]]))
    assert torch.allclose(moved[..., 4:-4, 4:-4], rgb[..., 2:-6, 7:-1], atol=1e-4)
    assert not torch.allclose(moved[..., 4:-4, 4:-4], rgb[..., 4:-4, 4:-4], atol=1e-2)


def test_what_repeats_from_cell_to_cell_is_a_grid_and_what_does_not_is_none():
    target = as_input(cloudy(64, 96, 0))
    grid = torch.zeros_like(target)
    grid[..., ::8] = 0.02
    to_and_fro = grid.clone()
    to_and_fro[..., 8::16] = -0.02  # as much of an error, but another in every second cell
    assert grid_loss(target, target) == 0
    assert grid_loss(target + grid, target) > 0.002
    assert grid_loss(target + to_and_fro, target) < 1e-6
    assert grid_loss(target + 0.02, target) < 1e-6  # a tint is none


def test_what_moves_with_the_cut_is_steady_and_what_stays_with_the_cells_is_not():
    picture, offset = as_input(cloudy(136, 136, 0)).expand(3, -1, -1, -1), torch.tensor([[0, 0], [7, 2], [3, 5]])
    here, there = window(picture, torch.zeros_like(offset), 128), window(picture, offset, 128)
    assert unsteadiness(here, there, offset) == 0
    assert unsteadiness(here, there, offset.flip(1)) > 0.01
    cells = torch.zeros_like(here)
    cells[..., ::8] = 0.1
    assert unsteadiness(here + cells, there + cells, offset) > 0.01


def test_a_length_ends_by_steps_or_by_the_clock():
    assert Length(steps=4).progress(2, 1e9) == 0.5
    assert Length(minutes=2).progress(10**9, 60) == 0.5
    with pytest.raises(ValueError, match="steps or minutes"):
        Length().progress(0, 0)
    rates = [learning_rate(p / 100, 1.0) for p in range(101)]
    assert max(rates) == pytest.approx(1.0, abs=1e-2)
    assert rates[-1] == pytest.approx(0.02)
