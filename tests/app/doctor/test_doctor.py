"""The doctor never falls ill himself, tells the truth of what is there, and names a remedy for what can be had."""

import importlib
import io
import json
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from rich.console import Console
from support.card.kernels import Nvrtc

from warpfuse.doctor import examination as doctor
from warpfuse.doctor import probes, video_probes
from warpfuse.doctor.examination import Finding, examine, table, to_json
from warpfuse.doctor.finding import guarded
from warpfuse.doctor.probes import PYTHONS
from warpfuse.engine import device
from warpfuse.engine.open import backend_names

ROOT = Path(__file__).resolve().parents[3]


def by_name(findings):
    return {finding.name: finding for finding in findings}


def shown(findings, width=100):
    console = Console(width=width, file=io.StringIO())
    console.print(table(findings))
    return console.file.getvalue()


def test_it_finds_what_this_test_runs_on():
    found = by_name(examine())
    for name in ("python", "warpfuse", "torch", "PyAV", "h264 decoding", "libx264 encoding", "cores"):
        assert found[name].found, found[name]
    assert sys.version.split()[0] in found["python"].detail


def test_every_backend_has_a_line_with_its_reason_if_it_cannot_run(monkeypatch):
    opening = importlib.import_module("warpfuse.engine.open")
    reason = "cuneiform is not installed: pip install cuneiform"
    monkeypatch.setattr(opening, "backend_names", lambda: [*backend_names(), "cuneiform"])
    honest = opening.missing
    monkeypatch.setattr(opening, "missing", lambda name, device="cpu": reason if name == "cuneiform" else honest(name))
    found = by_name(examine())
    assert set(backend_names()) <= set(found)
    line = found["cuneiform"]
    assert (line.found, line.detail, line.remedy) == (False, "cuneiform is not installed", "pip install cuneiform")
    assert not line.needed, "another backend runs"


def test_without_any_backend_nothing_runs_and_it_says_so(monkeypatch):
    opening = importlib.import_module("warpfuse.engine.open")
    monkeypatch.setattr(opening, "missing", lambda name, device="cpu": "gone: pip install it")
    findings = examine()
    assert by_name(findings)["onnxruntime"].needed
    assert not json.loads(to_json(findings))["ready"]
    assert "missing and needed: onnxruntime" in shown(findings)


def test_two_onnxruntimes_are_told(monkeypatch):
    monkeypatch.setattr(probes, "installed_version", lambda *names: "1.0")
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in by_name(examine())["one onnxruntime"].remedy


@pytest.mark.parametrize("broken", ["torch", "cv2", "av", "zmq", "psutil", "onnxruntime", "numpy"])
def test_a_broken_package_is_a_finding_and_hides_no_other(broken, monkeypatch):
    real = importlib.import_module

    def breaks(name, *rest):
        if name.split(".")[0] == broken:
            raise OSError(f"lib{broken}.so: cannot open shared object file")
        return real(name, *rest)

    for module in (probes, video_probes):
        monkeypatch.setattr(module, "import_module", breaks)
    monkeypatch.setitem(sys.modules, broken, None)  # a plain import raises ImportError
    findings = examine()
    assert {"software", "video", "machine", "bundles"} <= {finding.group for finding in findings}
    told = [finding for finding in findings if not finding.found and broken in finding.detail]
    assert told or broken == "numpy", "numpy's own line"
    shown(findings)


def test_every_probe_may_break(monkeypatch):
    def explodes():
        raise RuntimeError("first line\nsecond \x1b[31mline")
        yield

    names = [(group, name, explodes, remedy) for group, name, _, remedy in probes.PROBES]
    monkeypatch.setattr(doctor, "PROBES", names)
    findings = examine()
    assert len(findings) == len(names) and not any(finding.found for finding in findings)
    assert all(finding.detail.endswith("RuntimeError: first line second [31mline") for finding in findings)


def test_a_probe_that_breaks_midway_keeps_what_it_found():
    def probe():
        yield Finding("g", "first", True, "fine")
        raise KeyError("second")

    first, second = guarded("g", "n", probe, "fix it")
    assert first.found and not second.found
    assert (second.remedy, second.needed) == ("fix it", True)


def test_the_guard_is_what_holds_an_error_back(monkeypatch):
    monkeypatch.setattr(doctor, "guarded", lambda group, name, probe, remedy: list(probe()))
    monkeypatch.setattr(doctor, "PROBES", [("g", "n", lambda: iter([1 / 0]), "")])
    with pytest.raises(ZeroDivisionError):
        examine()


def test_nothing_is_connected_to_and_no_cuda_context_is_made(monkeypatch):
    def refuse(*_):
        raise AssertionError("the doctor opened a connection")

    torch = importlib.import_module("torch")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(torch.cuda, "init", refuse)
    assert by_name(examine())["torch"].found
    assert not torch.cuda.is_initialized()


def test_protocols_are_told_apart_without_a_connection():
    av = importlib.import_module("av")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        place = f"127.0.0.1:{server.getsockname()[1]}"
        assert video_probes.speaks(av, "rtmp", place)
        assert not video_probes.speaks(av, "pigeon", place), "FFmpeg has no such protocol"
        with pytest.raises(BlockingIOError):
            server.accept()
        with pytest.raises(av.error.FFmpegError):  # the control: without the whitelist it does connect
            av.open(f"tcp://{place}", options={"timeout": "50000"})
        server.accept()[0].close()


def no_compiler():
    raise ImportError("No module named 'cuda'")


@pytest.mark.parametrize("cards", [2, 0])
def test_gpus_are_told_by_their_driver(cards, monkeypatch):
    version = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (dvs)\n"
    monkeypatch.setattr(probes, "read_file", lambda path: version if str(path).endswith("nvidia/version") else "")
    monkeypatch.setattr(probes.shutil, "which", lambda name: f"/usr/bin/{name}")
    answer = subprocess.CompletedProcess([], 0, "570.86.15, NVIDIA H200\n" * cards)
    monkeypatch.setattr(probes.subprocess, "run", lambda *_, **__: answer)
    torch = importlib.import_module("torch")
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(device, "nvrtc", lambda: Nvrtc(0))
    found = {finding.name: finding for finding in guarded("gpu", "gpu", probes._gpu)}
    assert found["NVIDIA driver"].detail == "570.86.15"
    assert found["NVIDIA GPU"].found == bool(cards)
    if cards:
        assert found["NVIDIA GPU"].detail == "NVIDIA H200, NVIDIA H200"
        assert found["torch on CUDA"].detail == "torch is built for the CPU and sees 0 of 2"
        assert found["torch on CUDA"].remedy
        assert found["CUDA kernels"].found, "the control: here is a compiler"
        monkeypatch.setattr(device, "nvrtc", no_compiler)
        lacks = {finding.name: finding for finding in guarded("gpu", "gpu", probes._gpu)}["CUDA kernels"]
        assert (lacks.found, lacks.remedy) == (False, "pip install 'warpfuse[cuda]' nvidia-cuda-nvrtc")
        assert lacks.detail == "CUDA kernels cannot be compiled: No module named 'cuda'"
        assert found["decoding video (NVDEC)"].found
    else:
        assert "--gpus all" in found["NVIDIA GPU"].remedy


@pytest.mark.parametrize(
    "models, encodes",
    [
        (["NVIDIA GeForce RTX 4090"], True),
        (["NVIDIA H100 80GB HBM3"], False),
        (["NVIDIA A100-SXM4-40GB"], False),
        (["NVIDIA H200", "NVIDIA L4"], True),
    ],
)
def test_cards_without_a_video_encoder_are_named(models, encodes):
    found = {finding.name: finding for finding in video_probes.video_of_cards(models)}["encoding video (NVENC)"]
    assert found.found == encodes
    assert ("has no encoder" in found.detail) == (models[0] != "NVIDIA GeForce RTX 4090")


def test_a_small_shared_memory_is_told_with_the_command(monkeypatch):
    usage = type("Usage", (), {"free": 60 << 20, "total": 64 << 20})
    monkeypatch.setattr(probes.shutil, "disk_usage", lambda path: usage)
    line = by_name(examine())["shared memory"]
    assert not line.found and line.detail.startswith("60 of 64 MiB") and "--shm-size" in line.remedy


def test_a_bundle_that_lacks_a_file_is_told(monkeypatch, exact_bundle_copy):
    monkeypatch.setenv("WARPFUSE_BUNDLES", str(exact_bundle_copy.parent))
    assert by_name(examine())["exact"].found
    (exact_bundle_copy / "unet.onnx").unlink()
    line = by_name(examine())["exact"]
    assert not line.found and "unet.onnx" in line.detail


@pytest.fixture
def exact_bundle_copy(tmp_path):
    exact = importlib.import_module("support.exact")
    return Path(exact.write(tmp_path / "bundles" / "exact"))


def test_remedies_are_given_only_for_what_is_missing():
    for finding in examine():
        assert not (finding.found and finding.remedy), finding
        assert not (finding.needed and not finding.found and not finding.remedy), finding


def test_the_supported_range_is_the_package_s():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    low, high = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", project["requires-python"]).groups()
    assert [minor for _, minor in PYTHONS] == [int(low), int(high) - 1]


def test_json_and_table_hold_every_finding():
    findings = [Finding("g", "[bold]name", False, "why [red]not", "sudo [x] fix", True), Finding("g", "b", True, "1")]
    data = json.loads(to_json(findings))
    assert data["ready"] is False
    assert [Finding(**item) for item in data["findings"]] == findings
    text = shown(findings)
    assert all(part in text for part in ("[bold]name", "why [red]not", "sudo [x] fix", "missing and needed")), text
    assert "ready to run" in shown(findings[1:])


def test_importing_the_doctor_imports_nothing_that_may_be_broken():
    heavy = ("av", "cv2", "zmq", "onnxruntime")
    code = f"import sys, warpfuse.doctor.examination; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_srt_is_not_taken_for_the_subtitles_of_that_name(monkeypatch):
    av = video_probes.import_module("av")
    monkeypatch.setattr(video_probes, "speaks", lambda av, protocol: False)
    for there in (True, False):
        monkeypatch.setattr(video_probes, "program_speaks", lambda protocol, there=there: there)
        (finding,) = [finding for finding in video_probes.video() if finding.name == "srt://"]
        assert "srt" in av.formats_available and finding.found is there
        assert finding.remedy == ("" if there else "sudo apt-get install ffmpeg")
