"""A bundle is whole, as its maker left it and inside its folder, or it is refused with a reason."""

import json

import pytest
from support.small_bundle import ABOUT, FILES

from warpfuse.engine import load_bundle
from warpfuse.engine.bundle import find_bundles, load_autoencoder_bundle, load_flow_bundle, read_description
from warpfuse.engine.bundle_writing import write_autoencoder_bundle, write_bundle, write_flow_bundle
from warpfuse.engine.errors import BundleError


@pytest.fixture
def folder(tmp_path):
    write_bundle(tmp_path / "small", FILES, **ABOUT)
    return tmp_path / "small"


def edited(folder, **changes):
    path = folder / "bundle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return str(folder)


def test_what_was_written_is_loaded(folder):
    bundle = load_bundle(str(folder))
    assert bundle.about.styles["oil"].vector == (0.0, 1.0)
    assert bundle.network("unet").read_bytes() == FILES["unet.onnx"]


def test_it_is_found_by_name_where_the_environment_says(folder, monkeypatch):
    monkeypatch.setenv("WARPFUSE_BUNDLES", str(folder.parent))
    assert find_bundles()["small"] == folder
    assert load_bundle("small").folder == folder


def test_an_unknown_name_lists_the_known(folder, monkeypatch):
    monkeypatch.setenv("WARPFUSE_BUNDLES", str(folder.parent))
    with pytest.raises(BundleError, match=r"no bundle called 'smal'.*small"):
        load_bundle("smal")


def test_a_folder_without_a_description_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match=r"no bundle\.json"):
        load_bundle(str(tmp_path / "nowhere"))


def test_a_missing_file_is_named(folder):
    (folder / "unet.onnx").unlink()
    with pytest.raises(BundleError, match=r"unet\.onnx is missing"):
        load_bundle(str(folder))


@pytest.mark.parametrize("tear", [lambda b: b[:-1], lambda b: b[:-1] + b"x", lambda b: b""])
def test_one_changed_byte_is_noticed(folder, tear):
    path = folder / "decoder.onnx"
    path.write_bytes(tear(path.read_bytes()))
    with pytest.raises(BundleError, match=r"decoder\.onnx is torn or changed"):
        load_bundle(str(folder))


@pytest.mark.parametrize("name", ["../evil.onnx", "/etc/passwd", "a/../../b", "..\\evil", "C:evil", ""])
def test_a_name_that_leads_outside_is_refused(folder, name):
    with pytest.raises(BundleError, match="outside the bundle"):
        load_bundle(edited(folder, files={**json.loads((folder / "bundle.json").read_text())["files"], name: "0" * 64}))


def test_a_link_that_leads_outside_is_refused(folder, tmp_path):
    outside = tmp_path / "outside.onnx"
    outside.write_bytes(FILES["unet.onnx"])
    (folder / "unet.onnx").unlink()
    (folder / "unet.onnx").symlink_to(outside)
    with pytest.raises(BundleError, match="link to outside"):
        load_bundle(str(folder))


def test_a_folder_of_links_to_one_bundle_is_that_bundle(folder, tmp_path):
    """As a development install lays it out."""
    linked = tmp_path / "linked"
    linked.mkdir()
    for file in folder.iterdir():
        (linked / file.name).symlink_to(file)
    assert load_bundle(str(linked)).network("unet").read_bytes() == FILES["unet.onnx"]


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"format": 2}, "format 2, this warpfuse reads format 1"),
        ({"format": None}, "format None"),
        ({"kind": "gan"}, "kind"),
        ({"prediction": "noise"}, "prediction"),
        ({"surprise": 1}, "surprise"),
        ({"default_style": "pencil"}, "pencil"),
        ({"styles": {"ink": {"vector": [1.0]}, "oil": {"vector": [0.0, 1.0]}}}, "differ in length"),
        ({"networks": {"encoder": "encoder.onnx", "unet": "unet.onnx"}}, "lacks decoder"),
        ({"networks": {**ABOUT["networks"], "unet": "other.onnx"}}, "other.onnx has no sha256"),
        ({"takes_source": "yes"}, "takes_source"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(folder, changes, says):
    with pytest.raises(BundleError, match=says) as caught:
        load_bundle(edited(folder, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "\x00\xff", "3"])
def test_a_description_that_is_no_json_object_is_refused(folder, text):
    (folder / "bundle.json").write_text(text)
    with pytest.raises(BundleError):
        load_bundle(str(folder))


def test_writing_replaces_a_bundle_but_never_another_folder(folder, tmp_path):
    write_bundle(folder, {**FILES, "unet.onnx": b"new"}, **ABOUT)
    assert load_bundle(str(folder)).network("unet").read_bytes() == b"new"
    other = tmp_path / "photographs"
    other.mkdir()
    (other / "dear.jpg").write_bytes(b"...")
    with pytest.raises(BundleError, match="not a bundle"):
        write_bundle(other, FILES, **ABOUT)
    assert [path.name for path in other.iterdir()] == ["dear.jpg"]


def test_a_bundle_that_does_not_fit_leaves_nothing(tmp_path):
    with pytest.raises(BundleError):
        write_bundle(tmp_path / "bad", FILES, **{**ABOUT, "default_style": "pencil"})
    assert list(tmp_path.iterdir()) == []


TOKENS = {"tokenizer": "tokenizer.json", "length": 77, "start": 0, "end": 1, "pad": 1}
LORA = {"name": "ink", "default": 0.8, "text": True}
TEXT_FILES = {**FILES, "text.onnx": b"t" * 100, "tokenizer.json": b"{}"}
TEXT_ABOUT = {
    **{key: value for key, value in ABOUT.items() if key not in ("styles", "default_style")},
    "takes_source": False,
    "size": (512, 288),
    "batch": 4,
    "steps": {"top": 999.0, "floor": 0.0, "spacing": "leading", "offset": 1},
    "text": {"inputs": {"tokens": TOKENS}, "default_prompt": "ink"},
    "networks": {**ABOUT["networks"], "text": "text.onnx"},
}


def test_live_loras_are_read_and_need_text(tmp_path, folder):
    write_bundle(tmp_path / "live", TEXT_FILES, **{**TEXT_ABOUT, "loras": [LORA]})
    (lora,) = load_bundle(str(tmp_path / "live")).about.loras
    assert (lora.name, lora.default, lora.text) == ("ink", 0.8, True)
    with pytest.raises(BundleError, match="loras are of a bundle with text"):
        load_bundle(edited(folder, loras=[LORA]))


def test_a_bundle_prompted_by_text_is_loaded(tmp_path, folder):
    write_bundle(tmp_path / "told", TEXT_FILES, **TEXT_ABOUT)
    bundle = load_bundle(str(tmp_path / "told"))
    assert (bundle.about.size, bundle.about.batch, bundle.about.text.default_prompt) == ((512, 288), 4, "ink")
    assert (bundle.about.steps.spacing, bundle.about.steps.offset) == ("leading", 1)
    assert bundle.network("text").read_bytes() == b"t" * 100 and bundle.tokenizer().read_bytes() == b"{}"
    with pytest.raises(BundleError, match="no tokenizer for 'tokens_2'"):
        bundle.tokenizer("tokens_2")
    styled = load_bundle(str(folder))
    assert (styled.about.text, styled.about.size, styled.about.steps.spacing) == (None, None, "even")
    with pytest.raises(BundleError, match="prompted by the names of its styles"):
        styled.network("text")


SPACED = {"top": 6.0, "floor": 0.0, "spacing": "trailing"}


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"text": None}, "either styles or text"),
        ({"styles": ABOUT["styles"]}, "either styles or text"),
        ({"networks": ABOUT["networks"]}, "belong together"),
        ({"default_style": "ink"}, "of a bundle with styles"),
        ({"text": {"inputs": {}}}, "text.inputs"),
        ({"loras": [LORA, LORA]}, "loras: ink is there twice"),
        ({"loras": [{**LORA, "name": "a.b"}]}, "loras.0.name"),
        ({"loras": [{**LORA, "default": 4.5}]}, "loras.0.default"),
        ({"loras": [{**LORA, "scale": 1.0}]}, "loras.0.scale: Extra inputs"),
        ({"loras": [{**LORA, "name": f"ink{n}"} for n in range(17)]}, "loras: Tuple should have at most 16"),
        ({"text": {"inputs": {"tokens_3": TOKENS}}}, "text.inputs"),
        ({"text": {"inputs": {"tokens": {**TOKENS, "tokenizer": "other.json"}}}}, "other.json has no sha256"),
        ({"text": {"inputs": {"tokens": {**TOKENS, "length": 1}}}}, "length"),
        ({"text": {"inputs": {"tokens": TOKENS}, "time_ids": [1.0]}}, "time_ids"),
        ({"batch": 0}, "batch"),
        ({"size": [512]}, "size"),
        ({"steps": {"top": 999.0, "floor": 0.0, "spacing": "odd"}}, "spacing"),
        ({"steps": {"top": 999.0, "floor": 0.0, "end": "noisy"}}, "steps.end"),
        ({"steps": SPACED, "levels": {**ABOUT["levels"], "train_timesteps": 7}}, "levels.train_timesteps must be 8"),
        ({"steps": {"top": 999.0, "floor": 0.0, "spacing": "leading", "offset": 125}}, "steps.offset must be less"),
        (
            {"steps": {"top": 999.0, "floor": 0.0, "spacing": "lcm", "original_steps": 7}},
            "original_steps must be from 8",
        ),
        ({"steps": {"top": 999.0, "floor": 0.0, "spacing": "lcm", "original_steps": 1001}}, "original_steps must"),
    ],
)
def test_a_description_of_text_that_does_not_fit_is_refused(tmp_path, changes, says):
    with pytest.raises(BundleError, match=says) as caught:
        write_bundle(tmp_path / "told", TEXT_FILES, **{**TEXT_ABOUT, **changes})
    assert "\n" not in str(caught.value) and not (tmp_path / "told").exists()


FLOW = {
    "name": "small-flow",
    "size": (128, 96),
    "iterations": 6,
    "networks": {"flow": "flow.onnx"},
    "licence": "BSD-3-Clause",
    "source": "made by a test",
}


@pytest.fixture
def flow_folder(tmp_path):
    write_flow_bundle(tmp_path / "small-flow", {"flow.onnx": b"f" * 100}, **FLOW)
    return tmp_path / "small-flow"


def test_a_flow_bundle_that_was_written_is_loaded(flow_folder):
    bundle = load_flow_bundle(str(flow_folder))
    assert bundle.about.size == (128, 96) and bundle.about.iterations == 6
    assert bundle.network().read_bytes() == b"f" * 100
    assert read_description(flow_folder).kind == "flow"


def test_an_autoencoder_that_was_written_is_loaded(tmp_path):
    files = {"encoder.onnx": b"e", "decoder.onnx": b"d"}
    about = {**FLOW, "channels": 32, "downscale": 8, "networks": {"encoder": "encoder.onnx", "decoder": "decoder.onnx"}}
    del about["iterations"]
    write_autoencoder_bundle(tmp_path / "tiny", files, **about)
    assert load_autoencoder_bundle(str(tmp_path / "tiny")).network("decoder").read_bytes() == b"d"
    with pytest.raises(BundleError, match="kind 'autoencoder', needed here is one of kind 'latent-diffusion'"):
        load_bundle(str(tmp_path / "tiny"))


def test_a_bundle_of_another_kind_is_one_clear_error(folder, flow_folder):
    with pytest.raises(BundleError, match="kind 'flow', needed here is one of kind 'latent-diffusion'"):
        load_bundle(str(flow_folder))
    with pytest.raises(BundleError, match="kind 'latent-diffusion', needed here is one of kind 'flow'"):
        load_flow_bundle(str(folder))
    with pytest.raises(BundleError, match="needed here is one of kind 'autoencoder'"):
        load_autoencoder_bundle(str(folder))


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"size": [128]}, "size"),
        ({"size": [128, 0]}, "size.1"),
        ({"size": None}, "size, sizes: expected one of them"),
        ({"sizes": {"multiple": 16, "minimum": 64, "default_long_side": 384}}, "size, sizes: expected one of them"),
        ({"iterations": 0}, "iterations"),
        ({"networks": {}}, "lacks flow"),
        ({"networks": {"flow": "other.onnx"}}, "other.onnx has no sha256"),
        ({"networks": {"flow": 3}}, r"bundle.json: networks.flow: "),
        ({"styles": {}}, "bundle.json: styles: "),
    ],
)
def test_a_flow_description_that_does_not_fit_is_refused(flow_folder, changes, says):
    with pytest.raises(BundleError, match=says) as caught:
        load_flow_bundle(edited(flow_folder, **changes))
    assert "\n" not in str(caught.value)


def test_a_torn_flow_network_is_noticed(flow_folder):
    (flow_folder / "flow.onnx").write_bytes(b"f" * 99)
    with pytest.raises(BundleError, match=r"flow\.onnx is torn"):
        load_flow_bundle(str(flow_folder))


def test_a_file_given_by_its_path_is_moved_in(tmp_path):
    given = tmp_path / "made" / "flow.onnx"
    given.parent.mkdir()
    given.write_bytes(b"large")
    inode = given.stat().st_ino
    bundle = write_flow_bundle(tmp_path / "moved", {"flow.onnx": given}, **FLOW)
    assert load_flow_bundle(str(bundle.folder)).network().read_bytes() == b"large"
    assert bundle.network().stat().st_ino == inode  # not a copy: it is the file
    assert not given.exists()


def test_a_file_of_the_bundle_itself_may_be_given(flow_folder):
    write_flow_bundle(flow_folder, {"flow.onnx": flow_folder / "flow.onnx"}, **{**FLOW, "iterations": 8})
    bundle = load_flow_bundle(str(flow_folder))
    assert bundle.about.iterations == 8 and bundle.network().read_bytes() == b"f" * 100


@pytest.mark.parametrize("changes", [{"iterations": 0}, {}])
def test_what_cannot_be_written_leaves_the_given_files_where_they_are(tmp_path, changes):
    given = tmp_path / "flow.onnx"
    given.write_bytes(b"large")
    target = tmp_path / "out"
    if not changes:  # a folder that is no bundle
        target.mkdir()
        (target / "dear.jpg").write_bytes(b"...")
    with pytest.raises(BundleError):
        write_flow_bundle(target, {"flow.onnx": given}, **{**FLOW, **changes})
    assert given.read_bytes() == b"large" and not (target / "flow.onnx").exists()


def test_a_path_to_nothing_is_named(tmp_path):
    with pytest.raises(BundleError, match=r"flow\.onnx is to be moved in from .*nowhere, which is not a file"):
        write_flow_bundle(tmp_path / "out", {"flow.onnx": tmp_path / "nowhere"}, **FLOW)
    assert list(tmp_path.iterdir()) == []
