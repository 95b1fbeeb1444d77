"""Forms of frames as planes: each comes back as it was, and a description that is of no form is refused."""

import msgspec
import pytest
import torch

from warpfuse.graph.errors import WireError
from warpfuse.graph.links import messages, tensor_layout
from warpfuse.stages.frame import Frame, Hints, Latent, Motion, Picture, Stamp

X = torch.rand(1, 3, 4, 6)


@pytest.mark.parametrize(
    "frame",
    [
        Frame(Stamp(3, 7)),
        Picture(Stamp(3, 7), X),
        Picture(Stamp(3, 7), X, cover=X[:, :1], trust=X[:, 1:2]),
        Latent(Stamp(3, 7), X, X[:, :1]),
        Motion(Stamp(3, 7), X[:, :2], X[:, 2:]),
        Hints(Stamp(3, 7), {"edges": X, "stamp": X[:, :1]}),
    ],
    ids=lambda frame: type(frame).__name__,
)
def test_a_form_of_frame_comes_back_with_the_tensors_it_had(frame):
    packing = tensor_layout.pack(frame)
    message = messages.FrameMessage(3, 0, 1, content=tensor_layout.check(packing.content, packing.nbytes))
    back = tensor_layout.unpack(message, packing.tensors)
    assert type(back) is type(frame) and back.stamp == frame.stamp
    assert back.tensors.keys() == frame.tensors.keys()
    assert all(torch.equal(back.tensors[name], tensor) for name, tensor in frame.tensors.items())


@pytest.mark.parametrize(
    "kind, names",
    [
        ("picture", ["paint"]), ("picture", ["rgb", "stamp"]), ("picture", ["rgb", "z"]), ("latent", []),
        ("motion", ["flow"]), ("nothing", ["rgb"]), ("latent", ["z", "ready"]),
    ],
)  # fmt: skip
def test_planes_that_are_not_those_of_the_form_are_refused(kind, names):
    content = tensor_layout.pack(Latent(Stamp(0, 0), X)).content
    planes = tuple(msgspec.structs.replace(content.planes[0], name=name) for name in names)
    with pytest.raises(WireError, match="has the planes"):
        tensor_layout.check(msgspec.structs.replace(content, kind=kind, planes=planes), 1 << 20)
    tensor_layout.check(content, 1 << 20)  # the control


def test_what_is_no_frame_is_not_sent():
    with pytest.raises(TypeError, match="a stage gave dict"):
        tensor_layout.pack({"rgb": X})
