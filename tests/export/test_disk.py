"""Room is asked for before the work, on every disk that is written to; a disk that fills is one line."""

import errno
from collections import namedtuple

import pytest

from warpfuse.export import disk
from warpfuse.export.disk import check_room, told_when_full
from warpfuse.export.onnx_writing import ExportError
from warpfuse.export.targets import Targets

Usage = namedtuple("Usage", "total used free")
NETWORKS = {"unet": (866_000_000, 2), "vae": (84_000_000, 2)}


@pytest.fixture
def free(monkeypatch):
    def set_free(size):
        monkeypatch.setattr(disk.shutil, "disk_usage", lambda place: Usage(10**13, 0, int(size)))

    return set_free


@pytest.mark.parametrize(
    "targets, gigabytes",
    [
        (Targets(), 1.90 + 3.46),  # the files, and the widest network in float32 while it is traced
        (Targets(("onnx", "torch")), 2 * 1.90 + 3.46),
        (Targets(("onnx", "tensorrt-rtx"), ("sm89", "sm120")), 3 * 1.90 + 3.46),
    ],
)
def test_what_is_needed_grows_with_the_targets(free, tmp_path, monkeypatch, targets, gigabytes):
    monkeypatch.setattr(disk.tempfile, "gettempdir", lambda: str(tmp_path))
    free(1.06 * gigabytes * 1e9)
    check_room(tmp_path / "not" / "yet", NETWORKS, targets)
    free(0.98 * gigabytes * 1e9)
    with pytest.raises(
        ExportError, match=rf"{tmp_path}: .* GB are needed for .*, .* GB are free there. Make room"
    ) as e:
        check_room(tmp_path / "not" / "yet", NETWORKS, targets)
    assert "\n" not in str(e.value)


def test_a_disk_that_fills_is_told_whoever_noticed(free, tmp_path):
    says = r"out cannot be written: No space left on device\. Nothing was left"
    with pytest.raises(ExportError, match=says), told_when_full(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")
    free(1000)
    with pytest.raises(ExportError, match="No space left"), told_when_full(tmp_path / "out"):
        raise RuntimeError("PytorchStreamWriter failed writing file data/weights/weight_3: file write failed")
    free(1e12)
    with pytest.raises(RuntimeError, match="another"), told_when_full(tmp_path / "out"):
        raise RuntimeError("another reason")  # control: it is not the disk's fault
