"""What viewers get: the newest picture, with its own source and motion, composed and encoded once for all."""

import threading

import cv2
import numpy as np
import pytest
import torch

from warpfuse.stages.frame import Frame, Mask, Motion, Picture, RawFrame, Stamp
from warpfuse.web import pictures as module
from warpfuse.web.pictures import Look, Pictures


def raw(seq, value):
    return RawFrame(Stamp(seq, seq), np.full((8, 12, 3), value, np.uint8))


def motion(seq, flow=(0.0, 0.0), trust=1.0):
    field = torch.tensor(flow).reshape(1, 2, 1, 1).expand(1, 2, 8, 12)
    return Motion(Stamp(seq, seq), field, torch.full((1, 1, 8, 12), trust))


def test_a_picture_comes_with_the_source_of_its_own_frame():
    pictures = Pictures()
    for seq in range(3):
        pictures.saw_source(raw(seq, seq))
    pictures.show(raw(1, 101))
    _, side = pictures.composed(Look("side"))
    assert side.shape == (8, 12 + 4 + 12, 3)
    assert (side[:, :12] == 1).all() and (side[:, -12:] == 101).all()
    pictures.show(raw(2, 102))
    assert (pictures.composed(Look("source"))[1] == 2).all() and (pictures.composed(Look())[1] == 102).all()


def test_sources_of_dropped_frames_are_not_kept():
    pictures = Pictures()
    for seq in range(500):
        pictures.saw_source(raw(seq, 0))
    assert len(pictures._sources) <= 64
    pictures.show(raw(499, 1))
    assert not pictures._sources


def test_motion_is_kept_only_while_somebody_looks():
    pictures = Pictures()
    pictures.saw_motion(motion(0))
    assert not pictures._motions
    with pictures.watched():
        pictures.saw_motion(motion(1))
        assert list(pictures._motions) == [1] and pictures.viewers == 1
    assert not pictures._motions and pictures.viewers == 0


def test_the_mask_of_a_frame_is_shown_white_where_it_is_styled():
    pictures = Pictures()
    weight = torch.zeros(1, 1, 8, 12)
    weight[..., 6:] = 1
    pictures.saw_mask(Mask(Stamp(0, 0), weight))
    with pictures.watched():
        for seq in (1, 2):
            pictures.saw_mask(Mask(Stamp(seq, 0), weight if seq == 2 else 0 * weight))
        pictures.show(raw(2, 9))
        mask = pictures.composed(Look("mask"))[1]
        assert mask.shape == (8, 12, 3) and (mask[:, :6] == 0).all() and (mask[:, 6:] == 255).all()
        pictures.show(raw(3, 9))
        assert (pictures.composed(Look("mask"))[1] == 255).all(), "without one all of it is"
    assert not pictures._masks


def test_the_maps_of_a_frame_are_shown_beside_one_another_by_their_names():
    pictures = Pictures()
    pictures.saw_map("a", Picture(Stamp(0, 0), torch.full((1, 3, 4, 6), 0.2)))
    with pictures.watched():
        for seq in (1, 2):
            pictures.saw_map("edges", Picture(Stamp(seq, 0), torch.full((1, 3, 4, 6), seq / 10)))
            pictures.saw_map("depth", Picture(Stamp(seq, 0), torch.full((1, 3, 4, 6), seq / 5)))
            pictures.saw_map("held", Frame(Stamp(seq, 0)))
        pictures.show(raw(1, 9))
        _, rgb = pictures.composed(Look("control"))
        assert rgb.shape == (8, 12 + 4 + 12, 3), "as large as what is shown, whatever the networks' size"
        assert (rgb[:, :12] == 51).all() and (rgb[:, 16:] == 26).all(), "depth, edges of frame 1"
        pictures.show(raw(3, 9))
        assert not pictures.composed(Look("control"))[1].any(), "a frame without maps"
        pictures.saw_map("edges", Picture(Stamp(4, 0), torch.ones(1, 3, 4, 6)))
    pictures.show(raw(4, 9))
    assert not pictures.shown.maps, "kept only while somebody looks"


def test_overlays_colour_what_moves_and_what_is_not_trusted():
    pictures = Pictures()

    def seen(overlay, **how):
        with pictures.watched():
            pictures.saw_motion(motion(0, **how))
            pictures.show(raw(0, 100))
            return pictures.composed(Look("styled", overlay))[1].reshape(-1, 3).mean(0)

    right, left = seen("flow", flow=(-3.0, 0.0)), seen("flow", flow=(3.0, 0.0))
    still = seen("flow")
    assert right[0] > right[2] + 50 and left[2] > left[0] + 50, "opposite ways, opposite hues"
    assert np.ptp(still) < 2, "what stands still has no colour"
    assert (seen("trust") == 100).all()
    doubt = seen("trust", trust=0.0)
    assert doubt[0] > 150 and doubt[0] > doubt[2] + 80
    assert (seen("none", flow=(9.0, 9.0), trust=0.0) == 100).all()


def test_a_picture_without_motion_is_shown_plain():
    pictures = Pictures()
    pictures.show(raw(0, 7))
    assert (pictures.composed(Look("styled", "flow"))[1] == 7).all()
    assert Pictures().composed(Look()) is None is Pictures().jpeg(Look()) is Pictures().png(Look())


@pytest.mark.parametrize("once", [True, False])
def test_a_picture_is_encoded_once_however_many_look(monkeypatch, once):
    encoded = []
    encode = module.jpeg
    monkeypatch.setattr(module, "jpeg", lambda rgb: encoded.append(1) or encode(rgb))
    pictures = Pictures()
    if not once:
        monkeypatch.setattr(module._Once, "of", lambda self, number, make: (number, make()))
    pictures.show(raw(0, 50))
    viewers = [threading.Thread(target=pictures.jpeg, args=(Look(),)) for _ in range(8)]
    for viewer in viewers:
        viewer.start()
    for viewer in viewers:
        viewer.join()
    assert (len(encoded) == 1) if once else (len(encoded) == 8)  # False guards the test itself
    pictures.show(raw(1, 60))
    number, data = pictures.jpeg(Look())
    assert number == 2
    assert abs(int(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).mean()) - 60) <= 2


def test_a_png_has_the_colours_of_the_picture():
    pictures = Pictures()
    frame = raw(0, 0)
    frame.rgb[:] = (250, 10, 20)
    pictures.show(frame)
    decoded = cv2.imdecode(np.frombuffer(pictures.png(Look()), np.uint8), cv2.IMREAD_COLOR)
    assert tuple(decoded[0, 0]) == (20, 10, 250)
