"""The precision of the UNet: integers where the processor gains by them and they can be run, else one clear line."""

import json

import pytest
from support.small_bundle import ABOUT, FILES

from warpfuse.engine.bundle import load_bundle
from warpfuse.engine.bundle_writing import write_bundle
from warpfuse.engine.errors import BundleError, EngineError
from warpfuse.engine.precision import GAINING, choose_precision, cpu_flags, gains_by

INTEGERS = {"unet.int8.onnx": b"i" * 100}
PLAIN = frozenset({"fpu", "avx2", "avx512f", "avx512bw"})


@pytest.fixture
def both(tmp_path):
    """A bundle with a UNet in integers."""
    return write_bundle(tmp_path / "both", {**FILES, **INTEGERS}, **ABOUT, int8={"unet": "unet.int8.onnx"})


@pytest.fixture
def floats(tmp_path):
    """One without."""
    return write_bundle(tmp_path / "floats", FILES, **ABOUT)


def chosen(asked, bundle, flags, backend="onnxruntime", device="cpu"):
    return choose_precision(asked, bundle.about, backend, device, flags)


@pytest.mark.parametrize("flag", GAINING)
def test_auto_takes_integers_where_the_processor_gains_and_says_by_what(both, flag):
    assert chosen("auto", both, PLAIN | {flag}) == ("int8", f"faster by {flag}")
    precision, why = chosen("auto", both, PLAIN)
    assert precision == "float" and flag in why, "control: a processor without"


@pytest.mark.parametrize(
    "place, says",
    [(("torch", "cpu"), "for onnxruntime on cpu"), (("onnxruntime", "cuda:0"), "for onnxruntime on cpu")],
)
def test_auto_leaves_other_backends_and_bundles_without_integers_in_float(both, floats, place, says):
    flags = PLAIN | {"avx512_vnni"}
    precision, why = chosen("auto", both, flags, *place)
    assert precision == "float" and says in why
    assert chosen("auto", floats, flags) == ("float", "the bundle has no integers")
    assert chosen("auto", both, flags)[0] == "int8", "control"


def test_what_is_asked_for_is_taken_whatever_the_processor(both):
    for flags in (PLAIN, PLAIN | {"avx_vnni"}):
        assert chosen("float", both, flags) == ("float", "asked for")
        assert chosen("int8", both, flags) == ("int8", "asked for")


def test_integers_that_cannot_be_run_are_one_line_with_the_remedy(both, floats):
    with pytest.raises(
        EngineError, match=r"precision int8: bundle small has no UNet in 8-bit.*--precision auto"
    ) as told:
        chosen("int8", floats, PLAIN)
    assert "\n" not in str(told.value)
    for place in (("torch", "cpu"), ("onnxruntime", "cuda:0")):
        line = rf"by onnxruntime on cpu, got {place[0]} on {place[1]}\. Give --precision auto, or --backend onnxruntime"
        with pytest.raises(EngineError, match=line):
            chosen("int8", both, PLAIN, *place)


def test_a_bundle_gives_the_files_of_its_precision(both, floats):
    integers = both.in_precision("int8")
    assert integers.network("unet").read_bytes() == INTEGERS["unet.int8.onnx"] and integers.precision == "int8"
    assert integers.network("encoder") == both.network("encoder"), "it has that in float alone"
    assert both.network("unet").read_bytes() == FILES["unet.onnx"] and both.precision == "float"
    assert floats.in_precision("float").network("unet").read_bytes() == FILES["unet.onnx"]
    with pytest.raises(BundleError, match="no network in 8-bit integers"):
        floats.in_precision("int8")


def edited(bundle, **changes):
    path = bundle.folder / "bundle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return str(bundle.folder)


def test_a_bundle_from_before_there_were_integers_is_loaded(floats):
    about = json.loads((floats.folder / "bundle.json").read_text())
    del about["int8"]
    (floats.folder / "bundle.json").write_text(json.dumps(about))
    assert load_bundle(str(floats.folder)).about.int8 == {}


def test_the_file_of_integers_is_checked_like_every_other(both):
    path = both.folder / "unet.int8.onnx"
    load_bundle(str(both.folder))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"unet\.int8\.onnx is torn or changed"):
        load_bundle(str(both.folder))
    path.unlink()
    with pytest.raises(BundleError, match=r"unet\.int8\.onnx is missing"):
        load_bundle(str(both.folder))


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"int8": {"unet": "other.onnx"}}, r"other\.onnx has no sha256 under files"),
        ({"int8": {"encoder": "encoder.onnx"}}, "int8.encoder"),
        ({"int8": "unet.int8.onnx"}, "int8"),
    ],
)
def test_a_description_of_integers_that_does_not_fit_is_refused(both, changes, says):
    with pytest.raises(BundleError, match=says) as told:
        load_bundle(edited(both, **changes))
    assert "\n" not in str(told.value)


def test_flags_are_those_of_the_first_processor(tmp_path):
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nflags\t\t: fpu avx512_vnni\nvmx flags\t: ept\nprocessor\t: 1\nflags\t\t: fpu\n")
    assert cpu_flags(told) == {"fpu", "avx512_vnni"}
    assert gains_by(cpu_flags(told)) == "avx512_vnni"
    told.write_text("processor\t: 0\nFeatures\t: asimd i8mm\n")  # of an Arm
    assert gains_by(cpu_flags(told)) is None
    assert cpu_flags(tmp_path / "nothing") == frozenset()
