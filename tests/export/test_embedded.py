"""The embedded bundle's training at toy size: it ends in a bundle that loads, and a seed gives the same one again."""

import contextlib
import json
import re
import shutil

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto
from torch import nn

from warpfuse.engine.bundle import load_bundle
from warpfuse.engine.bundle_writing import write_bundle
from warpfuse.engine.errors import BadInput
from warpfuse.export.embedded import calibration, plates
from warpfuse.export.embedded.__main__ import main
from warpfuse.export.embedded.autoencoder import (
    LATENT_CHANNELS,
    TinyDecoder,
    TinyEncoder,
    start_from_principal_components,
    whiten_exactly,
)
from warpfuse.export.embedded.batches import painted_crops, shifted, window
from warpfuse.export.embedded.bundle import line_block
from warpfuse.export.embedded.bundle import read as read_bundle
from warpfuse.export.embedded.calibration import TrainedNetworks
from warpfuse.export.embedded.ink_tables import SIDE, ink_table, looked_up, stacked
from warpfuse.export.embedded.levels import alphas_and_sigmas
from warpfuse.export.embedded.losses import composite_loss, cover_loss, grid_loss, paint_loss, unsteadiness
from warpfuse.export.embedded.onnx_files import (
    decoder_onnx,
    encoder_onnx,
    lines_onnx,
    read_unet,
    read_weights,
    round_to_half,
    unet_onnx,
)
from warpfuse.export.embedded.painters.structure import deepened, structure
from warpfuse.export.embedded.painters.styles import deep_paint, flat, layers
from warpfuse.export.embedded.past_encoder import past_encoder
from warpfuse.export.embedded.photographs import training_set
from warpfuse.export.embedded.plates import PAINTS, painted
from warpfuse.export.embedded.schedule import Length, learning_rate
from warpfuse.export.embedded.styles import STYLES, one_hot
from warpfuse.export.embedded.train_student import LAST_TIMESTEP, START_TIMESTEP, depth
from warpfuse.export.embedded.unet import TinyUNet
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


@contextlib.contextmanager
def small_calibration():
    """Pictures so small that the networks take no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "LONG_SIDES", (64, 72))
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory, photos):
    """seed -> folder of a bundle after two steps; each seed is trained once, `again` once more."""
    kept = {}

    def bundle(seed, again=False):
        if (seed, again) not in kept:
            out = tmp_path_factory.mktemp("trained") / "bundle"
            sizes = ["--variants", "1", "--pages", "1", "--shortest", "136", "--longest", "137"]
            steps = ["--steps-autoencoder", "2", "--steps-student", "2", "--batch", "8", "--seed", str(seed)]
            given = ["--photos", photos, "--out", out, "--parts", "pictures", *sizes, *steps]
            with small_calibration():
                assert main([str(value) for value in given]) == 0
            kept[seed, again] = out
        return kept[seed, again]

    return bundle


def test_it_is_told_how_far_painting_is(trained, photos):
    """The plates come first and take minutes."""
    out = trained(1)
    said = (out.with_name(out.name + ".work") / "log.txt").read_text()
    assert re.search(r"painted 1 of \d+ plates", said), said.splitlines()[:2]


def test_two_steps_give_a_bundle_that_loads_and_takes_odd_sizes(trained):
    bundle = load_bundle(str(trained(1)))
    assert list(bundle.about.styles) == [style.name for style in STYLES]
    networks = {kind: ort.InferenceSession(bundle.network(kind)) for kind in ("encoder", "unet", "decoder", "lines")}
    rgb = np.stack([cloudy(200, 72, i).transpose(2, 0, 1) for i in range(2)])
    z = networks["encoder"].run(None, {"rgb": rgb})[0]
    assert z.shape == (2, LATENT_CHANNELS, 25, 9)
    feed = {"x": z, "source": z, "level": np.float32([[0.6, 0.8]] * 2), "style": np.float32([one_hot(0)] * 2)}
    x0 = networks["unet"].run(None, feed)[0]
    assert x0.shape == z.shape
    out = networks["decoder"].run(None, {"latent": x0})[0]
    cover = networks["lines"].run(None, {"rgb": rgb, "latent": x0, "style": feed["style"]})[0]
    assert out.shape == rgb.shape and cover.shape == (2, 1, 200, 72)
    for layer in (out, cover):
        assert layer.min() >= 0
        assert layer.max() <= 1


def test_a_seed_gives_the_same_weights_again(trained):
    def hashes(folder):
        files = json.loads((folder / "bundle.json").read_text())["files"]
        return {name: sha256 for name, sha256 in files.items() if name.endswith(".onnx")}

    assert hashes(trained(1)) == hashes(trained(1, again=True))
    assert set(hashes(trained(1)).values()).isdisjoint(hashes(trained(2)).values())  # the control


def test_the_unet_in_integers_can_be_made_again(trained, photos, tmp_path, capsys):
    """From the bundle alone, the same bytes as when it was trained; also where it had none."""
    shutil.copytree(trained(1), tmp_path / "bundle")
    files = json.loads((tmp_path / "bundle" / "bundle.json").read_text())["files"]
    bare = load_bundle(str(tmp_path / "bundle"))
    kept = bare.about.model_dump(exclude={"format", "files", "int8"})
    others = {name: (bare.folder / name).read_bytes() for name in files if name != "unet.int8.onnx"}
    write_bundle(tmp_path / "bundle", others, **kept)
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


def test_the_encoder_of_the_past_can_be_made_again(trained, photos, tmp_path, capsys):
    """From the bundle alone, the same bytes as when it was trained; also where it had none."""
    whole = load_bundle(str(trained(1)))
    kept = whole.about.model_dump(exclude={"format", "files"})
    del kept["networks"]["encoder_past"]
    files = {name: (whole.folder / name).read_bytes() for name in whole.about.files if name != "encoder_past.onnx"}
    write_bundle(tmp_path / "bundle", files, **kept)
    given = ["--photos", str(photos), "--out", str(tmp_path / "bundle"), "--parts", "past"]
    assert main([*given, "--seed", "1"]) == 0 and "encoder_past.onnx" in capsys.readouterr().out
    assert load_bundle(str(tmp_path / "bundle")).about == whole.about
    assert main([*given, "--seed", "2"]) == 0
    other = load_bundle(str(tmp_path / "bundle")).about.files
    assert {n for n in other if other[n] != whole.about.files[n]} == {"encoder_past.onnx"}, "control: other photographs"


def test_an_encoder_that_is_linear_is_found_again():
    """Least squares of a linear map is that map; what a network adds to it (the control) is not found."""
    torch.manual_seed(0)
    encoder, decoder = TinyEncoder().eval(), TinyDecoder(clamp=True).eval()
    rgb = torch.cat([as_input(cloudy(96, 128, i)) for i in range(4)])
    start_from_principal_components(encoder, decoder, rgb)
    photos = [(255 * cloudy(288, 320, i)).astype(np.uint8) for i in range(3)]

    def gap():
        with torch.no_grad():
            files = {"encoder": encoder_onnx(encoder), "decoder": decoder_onnx(decoder)}
            back = decoder(encoder(rgb))
            return (past_encoder(TrainedNetworks(files), photos, 0)(back) - encoder(back)).square().mean()

    assert gap() < 1e-3
    nn.init.normal_(encoder.body[-1].weight, std=0.1)
    assert gap() > 1e-2


@pytest.mark.parametrize("part", ["int8", "past"])
def test_networks_of_a_bundle_that_is_not_there_are_one_line(photos, tmp_path, capsys, part):
    assert main(["--photos", str(photos), "--out", str(tmp_path / "none"), "--parts", part]) == 2
    assert "is not a bundle" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["photos", "listed", "thumbnail", "start", "unreadable"])
def test_what_cannot_be_read_is_one_line_before_anything_is_painted(photos, tmp_path, capsys, option):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    given = {"--photos": folder, "--out": tmp_path / "out"}
    if option == "photos":
        given["--photos"] = tmp_path / "none"
    elif option == "listed":
        (folder / "INDEX.tsv").write_text("gone.jpg\t8x8\tsomewhere\tCC0\n")
    elif option == "unreadable":
        (folder / "0.png").write_bytes(b"no picture")
    else:
        given[f"--{option}"] = tmp_path / "none.jpg"
    assert main([str(word) for pair in given.items() for word in pair]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and ("expected" in said or "is not a bundle" in said)
    assert not list(tmp_path.glob("out*"))


def test_work_that_lies_there_is_not_trained_over(trained, photos, capsys):
    out = trained(1)
    arguments = ["--photos", str(photos), "--out", str(out)]
    assert main(arguments) == 2
    assert "--resume" in capsys.readouterr().err


@pytest.mark.parametrize("rounded", [True, False])
def test_torch_and_onnx_runtime_agree(rounded):
    """Within TOLERANCE at odd sizes; weights not rounded to what the file holds are the control that must fail."""
    torch.manual_seed(0)
    encoder, unet, decoder = TinyEncoder().eval(), TinyUNet(len(STYLES)).eval(), TinyDecoder(clamp=True).eval()
    lines = line_block().eval()
    encoder.std.fill_(0.1)
    if rounded:
        for network in (encoder, unet, decoder, lines):
            round_to_half(network)
    z = torch.randn(2, LATENT_CHANNELS, 45, 25)
    rgb = torch.cat([as_input(cloudy(360, 200, i)) for i in range(2)])
    level, style = torch.tensor([[0.6, 0.8], [0.1, 0.995]]), torch.eye(len(STYLES))[:2]
    cases = [
        (encoder, encoder_onnx(encoder), {"rgb": as_input(cloudy(360, 200, 0))}),
        (unet, unet_onnx(unet, len(STYLES)), {"x": z, "source": torch.randn_like(z), "level": level, "style": style}),
        (decoder, decoder_onnx(decoder), {"latent": z}),
        (lines, lines_onnx(lines, len(STYLES)), {"rgb": rgb, "latent": z, "style": style}),
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
    data = encoder_onnx(TinyEncoder())
    stored = onnx.load_model_from_string(data).graph.initializer
    assert {t.data_type for t in stored if np.prod(t.dims) >= 512} == {TensorProto.FLOAT16}
    assert len(data) < 2.2 * sum(p.numel() for p in TinyEncoder().parameters())


def test_the_start_is_the_best_linear_round_trip():
    """Components of deviation 1, and closer to the picture than its 4x4 means, which take 12 numbers a block of 16."""
    torch.manual_seed(0)
    encoder, decoder, rgb = TinyEncoder(), TinyDecoder(), torch.cat([as_input(cloudy(128, 128, i)) for i in range(4)])
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
    encoder, decoder = TinyEncoder().eval(), TinyDecoder().eval()
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
    unet, z = TinyUNet(3), torch.randn(1, LATENT_CHANNELS, 9, 7)
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
    with pytest.raises(BadInput, match="permissive licence"):
        training_set(tmp_path, held_out=("a.png", "d.png"))


def test_strength_is_a_straight_way_from_the_source_to_the_style():
    """The network is told the style alone, so half the strength is halfway, whatever the weights are."""
    torch.manual_seed(0)
    unet, z = TinyUNet(3), torch.randn(1, LATENT_CHANNELS, 8, 8)
    x, level, style = torch.randn_like(z), torch.tensor([[0.6, 0.8]]), torch.eye(3)[:1]
    with torch.no_grad():
        full, part = unet(x, z, level, style), unet(x, z, level, 0.3 * style)
        assert torch.allclose(part, torch.lerp(z, full, 0.3), atol=1e-5)
        assert not torch.allclose(part, torch.lerp(z, full, 0.4), atol=1e-2)


def test_a_training_goes_on_from_a_bundle(trained, photos, tmp_path):
    begun = trained(1)
    unet, lines = read_bundle(begun)[2:]
    with pytest.raises(ExportError, match="not a TinyDecoder"):
        read_weights(TinyDecoder(), begun / "unet.onnx")
    given = ["--photos", photos, "--out", tmp_path / "on", "--parts", "pictures", "--start", begun]
    given += ["--variants", 1, "--pages", 1, "--shortest", 136, "--longest", 137, "--steps-student", 2, "--batch", 8]
    with small_calibration():
        assert main([str(value) for value in given]) == 0
    files = [(folder / "encoder.onnx").read_bytes() for folder in (begun, tmp_path / "on")]
    assert files[0] == files[1], "encoder and decoder stay as they are"
    moved, drawn = read_bundle(tmp_path / "on")[2:]
    for before, after in ((unet.leave.weight, moved.leave.weight), (lines.leave.weight, drawn.leave.weight)):
        assert not torch.equal(before, after)
        assert (before - after).abs().max() < 0.01, "it went on, not anew"


def test_styles_keep_their_places_by_name_when_a_training_goes_on(tmp_path):
    """A file whose styles are others, in another order: those of one name keep their weights, new ones start anew."""
    torch.manual_seed(0)
    known = ["other", STYLES[3].name, STYLES[0].name]
    old, anew = TinyUNet(3), TinyUNet(len(STYLES))
    for parameter in old.parameters():
        nn.init.normal_(parameter, std=0.1)  # what is alike a file holds once, under one name
    (tmp_path / "unet.onnx").write_bytes(unet_onnx(old, 3))
    fresh = anew.condition[0].weight.detach().clone()
    read = read_unet(anew, tmp_path / "unet.onnx", known).condition[0].weight
    told = old.condition[0].weight.half().float()
    assert torch.equal(read[:, :2], told[:, :2])
    assert torch.equal(read[:, 2 + 3], told[:, 2 + 1]) and torch.equal(read[:, 2], told[:, 2 + 2])
    assert torch.equal(read[:, 2 + 1], fresh[:, 2 + 1]), "the control: a style that is not in the file"


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


@pytest.fixture(scope="module")
def plate():
    return painted((255 * cloudy(144, 168, 3)).astype(np.uint8))


def test_a_plate_holds_each_paint_layer_once_and_every_cover(plate):
    assert plate.pictures.shape == (1 + 2 * len(PAINTS), 144, 168, 3) and len(PAINTS) < len(STYLES)
    assert plate.covers.shape == (len(STYLES), 144, 168)
    for i, style in enumerate(STYLES):
        source, paint, deep, cover = plate.crop(i, 16, 24, 64)
        assert np.array_equal(source, plate.pictures[0][16:80, 24:88])
        assert np.array_equal(paint, plate.pictures[1 + PAINTS.index(style.paint)][16:80, 24:88])
        assert np.array_equal(deep, plate.pictures[1 + len(PAINTS) + PAINTS.index(style.paint)][16:80, 24:88])
        assert np.array_equal(cover, plate.covers[i][16:80, 24:88])


def test_plates_are_painted_once_and_read_again(tmp_path, monkeypatch):
    photos = [(255 * cloudy(144, 160, 0)).astype(np.uint8)]
    first = list(plates.plates(tmp_path, photos, 1, 0, (136, 137), 7))
    monkeypatch.setattr(plates, "painted", lambda source: pytest.fail("painted again"))
    again = list(plates.plates(tmp_path, photos, 1, 0, (136, 137), 7))
    assert np.array_equal(first[0].pictures, again[0].pictures) and np.array_equal(first[0].covers, again[0].covers)
    with pytest.raises(pytest.fail.Exception, match="painted again"):  # the control: another seed is another plate
        list(plates.plates(tmp_path / "other", photos, 1, 0, (136, 137), 7))


def test_plates_with_other_layers_are_painted_anew(tmp_path):
    """Those that an earlier version left behind."""
    photos = [(255 * cloudy(144, 160, 0)).astype(np.uint8)]
    (first,) = plates.plates(tmp_path, photos, 1, 0, (136, 137), 7)
    whole = first.pictures.copy()
    np.save(tmp_path / "00_0000.pictures.npy", whole[: 1 + len(PAINTS)])
    (again,) = plates.plates(tmp_path, photos, 1, 0, (136, 137), 7)
    assert np.array_equal(again.pictures, whole)


def test_each_step_more_is_taught_a_deeper_paint():
    """The first step is taught the paint; the last of two, three and four lie further and further towards the deep."""
    last = [LAST_TIMESTEP + (START_TIMESTEP - LAST_TIMESTEP) / steps for steps in (1, 2, 3, 4)]
    depths = depth(torch.tensor(last)).tolist()
    assert depths == pytest.approx([0.0, 0.4, 0.7, 1.0], abs=0.03)
    assert depth(torch.tensor([START_TIMESTEP + 49, LAST_TIMESTEP - 20])).tolist() == [0.0, 1.0]
    along = depth(torch.arange(40, 300))
    assert (along[1:] <= along[:-1]).all()


def test_deep_paint_is_flatter_and_richer(plate):
    """Of the paint that most styles share: less detail within areas, and more contrast and colour than those have."""
    paint, deep = plate.pictures[1].astype(np.float32), plate.pictures[1 + len(PAINTS)].astype(np.float32)

    def detail(x):
        return np.abs(x - cv2.blur(x, (5, 5))).mean() / x.std()

    assert detail(deep) < 0.9 * detail(paint)
    areas = deepened(structure(cloudy(96, 96, 3)))
    assert deep_paint(flat, areas).std() > 1.08 * flat(areas).std()


def test_crops_of_all_layers_are_turned_together(plate):
    """Where a crop lies in its source its paint and its cover lie too, mirrored and turned alike."""
    crops = painted_crops([plate], 16, 64, np.random.default_rng(0))
    assert crops.source.shape == (16, 3, 64, 64) and crops.cover.shape == (16, 1, 64, 64)
    places = list[int]()
    for n, style in enumerate(crops.style.tolist()):
        paint = plate.pictures[1 + PAINTS.index(STYLES[style].paint)]
        deep = plate.pictures[1 + len(PAINTS) + PAINTS.index(STYLES[style].paint)]
        whole = np.concatenate([plate.pictures[0], paint, deep, plate.covers[style][..., None]], -1)
        crop = torch.cat([crops.source[n], crops.paint[n], crops.deep[n], crops.cover[n]])
        before = len(places)
        for turn in range(8):
            turned = whole[:: -1 if turn & 1 else 1, :: -1 if turn & 2 else 1].swapaxes(0, turn >> 2)
            layers_of = torch.from_numpy(np.ascontiguousarray(turned)).permute(2, 0, 1).float() / 255
            corner = (layers_of[0].unfold(0, 64, 1).unfold(1, 64, 1)[..., 0, :] == crop[0, 0]).all(-1).nonzero()
            places += [turn for y, x in corner.tolist() if torch.equal(layers_of[:, y : y + 64, x : x + 64], crop)]
        assert len(places) == before + 1
    assert len(set(places)) > 2, "some are mirrored, some turned"


def test_a_table_of_inks_is_the_inks_between_its_places(plate):
    for style, table in zip(STYLES, stacked(STYLES), strict=True):
        assert (ink_table(style) is None) is (style.inked is None)
        rgb = plate.pictures[1].astype(np.float32) / 255
        wanted = rgb if style.inked is None else style.inked(rgb)
        got = looked_up(as_input(rgb), table[None])[0].permute(1, 2, 0).numpy()
        assert np.abs(got - wanted).mean() < 0.012, style.name
    places = ink_table(STYLES[0])
    assert places.shape == (SIDE, SIDE, SIDE, 3)
    assert places[0, 0, 0].sum() < places[-1, -1, -1].sum(), "black stays darker than white"
    red = STYLES[0].inked(np.float32([[[1, 0, 0]]]))[0, 0]
    assert np.abs(places[-1, 0, 0] / 255 - red).max() < 0.003, "red comes first"


def test_a_line_block_starts_as_the_line_drawing_of_every_style():
    """Its cover goes with the painter's; a style without lines has none, whatever the weights are."""
    torch.manual_seed(0)
    block, rgb = line_block().eval(), cloudy(128, 128, 5).clip(0.3, 0.9)
    found = structure(rgb)
    with torch.no_grad():
        for i, style in enumerate(STYLES):
            vector = torch.tensor([one_hot(i)])
            cover = block(as_input(rgb), torch.zeros(1, LATENT_CHANNELS, 16, 16), vector)[0, 0].numpy()
            wanted = layers(style, found).cover
            if style.line is None:
                assert cover.max() == 0
                blend = 0.5 * vector + 0.5 * torch.tensor([one_hot(0)])
                ukiyoe = block(as_input(rgb), torch.zeros(1, LATENT_CHANNELS, 16, 16), torch.tensor([one_hot(0)]))
                mixed = block(as_input(rgb), torch.zeros(1, LATENT_CHANNELS, 16, 16), blend)
                assert torch.allclose(mixed, ukiyoe, atol=1e-5), "the share of lines is laid on by whoever prints"
            elif wanted.mean() > 0.02:
                assert np.corrcoef(cover.ravel(), wanted.ravel())[0, 1] > 0.2, style.name
                assert np.corrcoef(cover.ravel(), wanted[::-1].ravel())[0, 1] < 0.15, "the control: upside down"


def test_losses_are_nothing_for_what_is_alike_and_weigh_lines():
    target, cover = as_input(cloudy(64, 64, 0)), torch.zeros(1, 1, 64, 64)
    cover[..., 30:34] = 1
    assert paint_loss(target, target) == composite_loss(target, target, target, cover) == cover_loss(cover, cover) == 0
    on, beside = target.clone(), target.clone()
    on[..., 30:34] += 0.1
    beside[..., 10:14] += 0.1
    assert composite_loss(on, target, target, cover) > 1.2 * composite_loss(beside, target, target, cover)
    missed, added = cover_loss(0 * cover, cover), cover_loss(cover.roll(8, 3) + cover, cover)
    assert missed == pytest.approx(4 * added)
