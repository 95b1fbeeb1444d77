"""What ComfyUI reads of the nodes, and how it is told that they are off."""

import asyncio
import sys

import pytest

from warpfuse import comfy
from warpfuse.engine.errors import BadInput

ITS_OWN = {"IMAGE", "MASK", "LATENT", "MODEL", "VAE", "CONDITIONING", "CONTROL_NET", "SAMPLER", "SIGMAS"}
WIDGETS = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool}


@pytest.fixture
def infos(runtime):
    names = [name for name in runtime.list_nodes() if name.lower().startswith("warpfuse")]
    return {name: runtime.get_node_info(name) for name in names}


def inputs_of(info):
    return {name: spec for part in info["input_types"].values() for name, spec in part.items()}


def test_every_node_is_there_under_a_name_of_ours(infos):
    from warpfuse.comfy.nodes import NODES

    assert sorted(infos) == sorted(node.__name__ for node in NODES)
    assert all(name.startswith("Warpfuse") and info["category"] == "warpfuse" for name, info in infos.items())


def test_every_socket_is_of_comfyui_or_one_of_our_nodes_gives_it(infos):
    given = {kind for info in infos.values() for kind in info["return_types"]}
    for name, info in infos.items():
        for socket, (kind, _) in inputs_of(info).items():
            assert kind in ITS_OWN | given | WIDGETS.keys() | {"COMBO"}, f"{name}.{socket}: nothing gives a {kind}"
    assert given <= ITS_OWN | {"WARPFUSE_BUNDLE", "WARPFUSE_MOTION"}


def test_every_default_is_one_that_may_be_given(infos):
    for name, info in infos.items():
        for socket, (kind, options) in inputs_of(info).items():
            place = f"{name}.{socket}"
            if kind == "COMBO":
                assert options["options"] and options.get("default", options["options"][0]) in options["options"], place
            elif kind in WIDGETS:
                default = options["default"]
                assert isinstance(default, WIDGETS[kind]), place
                assert options.get("min", default) <= default <= options.get("max", default), place


def test_the_ranges_are_those_of_a_graph_file(infos):
    from warpfuse.graph.plan.config import validate

    for name in ("WarpfuseStylize", "WarpfuseLive"):
        for key in ("steps", "strength", "fusion", "seed"):
            options = inputs_of(infos[name])[key][1]
            for value in (options["min"], options["max"]):
                validate({key: value})
            for value in (options["min"] - 1, options["max"] + 1):
                with pytest.raises(BadInput, match=key):
                    validate({key: value})


def test_everything_has_a_tooltip_and_every_node_a_description(runtime, infos):
    from warpfuse.comfy.nodes import NODES

    assert all(node.define_schema().description for node in NODES)
    for name, info in infos.items():
        for socket, (_, options) in inputs_of(info).items():
            assert options.get("tooltip"), f"{name}.{socket}"


def test_the_bundles_offered_are_those_that_style(infos):
    assert "embedded" in inputs_of(infos["WarpfuseBundle"])["name"][1]["options"]
    assert "embedded-flow" not in inputs_of(infos["WarpfuseBundle"])["name"][1]["options"]


def test_a_part_that_is_missing_turns_the_nodes_off_in_a_sentence(runtime, monkeypatch):
    assert asyncio.run(comfy.comfy_entrypoint())  # the control
    found = comfy.find_spec
    monkeypatch.setattr(comfy, "find_spec", lambda name: None if name == "onnxruntime" else found(name))
    with pytest.raises(BadInput, match=r"nodes of warpfuse are off: onnxruntime cannot be found\. Run .*pip install"):
        asyncio.run(comfy.comfy_entrypoint())


def test_a_comfyui_that_is_too_old_turns_the_nodes_off_in_a_sentence(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("warpfuse.comfy.nodes")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "comfy_api.latest", None)
    with pytest.raises(BadInput, match=r"need a ComfyUI with nodes of version 3 .* Update ComfyUI"):
        asyncio.run(comfy.comfy_entrypoint())


def test_the_folder_alone_says_what_is_missing(comfyui, runtime, monkeypatch):
    source = (comfyui / "custom_nodes" / "comfyui-warpfuse" / "__init__.py").read_text()
    monkeypatch.setitem(sys.modules, "warpfuse.comfy", None)
    with pytest.raises(ImportError, match=r"warpfuse is not installed where ComfyUI runs .* pip install"):
        exec(compile(source, "__init__.py", "exec"), {})
