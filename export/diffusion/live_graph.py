"""The place in an ONNX graph where the branches of live LoRAs are added."""

from __future__ import annotations

import re
from collections import Counter

import onnx
from onnx import helper

# In the names of a branch's nodes: it is the submodule "lora" of its layer, numbered if a scope has several.
_BRANCH = re.compile(r"/lora(_\d+)?/")


def add_after_residual(onnx_graph: onnx.GraphProto) -> None:
    """Change (y + branch) + r to (y + r) + branch, in place, for every r.

    Runtimes fuse a layer with the sum after it. If a branch is between them, the layer is rounded differently, and a
    scale of 0 would not give exactly the result of the network without the LoRA.
    """
    used = Counter(name for node in onnx_graph.node for name in node.input)
    used.update(value.name for value in onnx_graph.output)
    live = {
        node.output[0]: node
        for node in onnx_graph.node
        if node.op_type == "Add" and used[node.output[0]] == 1 and sum(map(_of_branch, node.input)) == 1
    }
    gone: set[str] = set()
    nodes = []
    for node in onnx_graph.node:
        parted = [live[name] for name in node.input if name in live] if node.op_type == "Add" else []
        if parted:
            gone.update(one.output[0] for one in parted)
            terms = [_own(live[name]) if name in live else name for name in node.input]
            terms += [_added(one) for one in parted]
            nodes += _sum(terms, node.output[0])
        else:
            nodes.append(node)
    del onnx_graph.node[:]
    onnx_graph.node.extend(node for node in nodes if node.output[0] not in gone)


def _of_branch(name: str) -> bool:
    return _BRANCH.search(name) is not None


def _own(live: onnx.NodeProto) -> str:
    name: str = next(name for name in live.input if not _of_branch(name))
    return name


def _added(live: onnx.NodeProto) -> str:
    name: str = next(name for name in live.input if _of_branch(name))
    return name


def _sum(terms: list[str], output: str) -> list[onnx.NodeProto]:
    """Nodes that add the terms from left to right."""
    nodes = []
    so_far = terms[0]
    for number, term in enumerate(terms[1:], 1):
        result = output if number == len(terms) - 1 else f"{output}.sum{number}"
        nodes.append(helper.make_node("Add", [so_far, term], [result], name=f"{result}.add"))
        so_far = result
    return nodes
