"""The figures of the model card: what counts as a line, as flat ground, and as near."""

import cv2
import numpy as np
import pytest

from warpfuse.export.embedded.evaluate import Score, lines, main, photographs, score, sheet, thinned


def paper(height=96, width=128):
    return np.full((height, width, 3), 0.85, np.float32)


def drawn(offset=0, ink=0.1):
    """Paper with a slanted line of three pixels and a circle of two, both `offset` pixels further on."""
    out = (paper() * 255).astype(np.uint8)
    colour = (round(255 * ink),) * 3
    cv2.line(out, (10 + offset, 80), (60 + offset, 12), colour, 3, cv2.LINE_AA)
    cv2.circle(out, (92 + offset, 48), 20, colour, 2, cv2.LINE_AA)
    return out.astype(np.float32) / 255


def test_a_thick_line_is_thinned_to_its_middle():
    mask = np.zeros((40, 60), bool)
    mask[18:23, 8:52] = True
    thin = thinned(mask)
    assert (thin.sum(0) <= 1).all() and thin.sum() > 36
    assert set(np.nonzero(thin)[0]) == {20}


def test_dark_and_bright_lines_are_told_apart_and_wide_things_are_none():
    assert lines(drawn()).sum() > 150
    assert not lines(drawn(), bright=True).any()
    assert lines(1 - drawn(), bright=True).sum() > 150
    box = paper()
    box[20:70, 30:90] = 0.1
    assert not lines(box)[30:60, 40:80].any()


def test_a_picture_against_itself_is_perfect_and_lines_count_within_two_pixels():
    same = score(drawn(), drawn())
    assert (same.f1, same.precision, same.recall, same.lab) == (1, 1, 1, 0)
    assert same.slope == same.painter_slope
    assert score(drawn(1), drawn()).f1 > 0.98
    assert score(drawn(7), drawn()).f1 < 0.6  # the control
    assert score(paper(), drawn()).recall == 0


def test_mottle_on_flat_ground_shows_and_faint_lines_do_not_count_as_drawn():
    mottled = drawn() + np.random.default_rng(0).normal(0, 0.02, (96, 128, 1)).astype(np.float32)
    clean = cv2.GaussianBlur(drawn() + np.linspace(0, 0.05, 128, dtype=np.float32)[None, :, None], (0, 0), 0.6)
    assert score(mottled, clean).slope > 4 * score(clean, clean).slope
    assert score(drawn(ink=0.80), drawn()).recall < 0.1
    assert score(drawn(ink=0.80), drawn()).lab > 2


def test_the_summary_says_means_and_flatness_of_all_together():
    said = Score.summary([Score(1, 1, 1, 0, 0.3, 0.1), Score(0.5, 0.5, 0.5, 4, 0.1, 0.3)])
    assert said == "f1 0.75 precision 0.75 recall 0.75 lab 2.00 flatness 1.00"


def test_photographs_are_those_that_were_not_trained_on(tmp_path):
    for name in ("a", "b", "kodak_kodim04"):
        cv2.imwrite(str(tmp_path / f"{name}.jpg"), np.full((80, 120, 3), 90, np.uint8))
    rows = ["a.jpg\t120x80\tx\tCC0", "b.jpg\t120x80\tx\tGPL-2+", "kodak_kodim04.jpg\t120x80\tx\tCC0"]
    (tmp_path / "INDEX.tsv").write_text("\n".join(rows) + "\n")
    found = dict(photographs(tmp_path, 96))
    assert list(found) == ["kodak_kodim04.jpg", "b.jpg"]
    assert all(picture.shape == (64, 96, 3) for picture in found.values())


def test_a_sheet_has_a_row_for_every_photograph():
    rows = [[drawn(), paper()], [paper(240, 320), paper(240, 320)]]
    assert sheet(rows).shape == (2 * 216, 2 * 288, 3)


def test_a_bundle_that_is_not_there_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "none"), "--photos", str(tmp_path)]) == 2
    assert "is not a bundle" in capsys.readouterr().err


@pytest.mark.parametrize("ink", [0.1, 0.3])
def test_recall_falls_with_the_lines_that_are_missing(ink):
    half = drawn(ink=ink)
    half[:, 64:] = paper()[:, 64:]
    found = score(half, drawn(ink=ink))
    assert found.precision == 1
    assert 0.2 < found.recall < 0.7
