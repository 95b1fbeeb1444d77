"""Write the example workflows of docs/comfy, for ComfyUI's interface (`*.json`) and its API (`*.api.json`), and their
pictures.

    python docs/make_comfy_workflows.py http://127.0.0.1:8188 [--pictures]

asks a ComfyUI that runs with the nodes of warpfuse for the schemas; the pictures are of its own page, by Chromium.
"""

import io
import json
import shutil
import sys
import urllib.request
from pathlib import Path

FOLDER = Path(__file__).parent / "comfy"
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
COLUMN_PX, GAP_PX, WIDTH_PX = 380, 40, 320
COLOURS = 128  # of the pictures: they are to stay small

LOAD = {"clip": ("LoadVideo", 0, {"file": "clip.mp4"}), "frames": ("GetVideoComponents", 0, {"video": "clip:0"})}
SAVE = {"save": ("SaveVideo", 4, {"video": "video:0", "format": "auto", "codec": "auto"})}

# name -> (node, column, inputs); "clip:0" is output 0 of the node called clip. What is left out has its default.
WORKFLOWS = {
    "style_a_video": {
        **LOAD,
        "bundle": ("WarpfuseBundle", 1, {"name": "embedded"}),
        "style": ("WarpfuseStylize", 2, {"bundle": "bundle:0", "images": "frames:0", "prompt": "ink"}),
        "video": ("CreateVideo", 3, {"images": "style:0", "fps": "frames:2", "audio": "frames:1"}),
        "save": ("SaveVideo", 4, {**SAVE["save"][2], "filename_prefix": "video/styled"}),
    },
    "live": {
        "frame": ("LoadImage", 0, {"image": "example.png"}),
        "bundle": ("WarpfuseBundle", 0, {"name": "embedded"}),
        "style": ("WarpfuseLive", 1, {"bundle": "bundle:0", "images": "frame:0", "prompt": "comic"}),
        "show": ("PreviewImage", 2, {"images": "style:0"}),
    },
    "any_checkpoint": {
        **LOAD,
        "checkpoint": ("CheckpointLoaderSimple", 0, {"ckpt_name": "v1-5-pruned-emaonly.safetensors"}),
        "positive": ("CLIPTextEncode", 1, {"clip": "checkpoint:1", "text": "an ink drawing, bold lines"}),
        "negative": ("CLIPTextEncode", 1, {"clip": "checkpoint:1", "text": "blurry, photograph"}),
        "control": ("ControlNetLoader", 1, {"control_net_name": "control_v11p_sd15_canny.safetensors"}),
        "edges": ("Canny", 1, {"image": "frames:0"}),
        "flow": ("WarpfuseFlow", 1, {"images": "frames:0"}),
        "solver": ("KSamplerSelect", 2, {"sampler_name": "euler"}),
        "sigmas": (
            "BasicScheduler",
            2,
            {"model": "checkpoint:0", "scheduler": "normal", "steps": 20, "denoise": 0.6},
        ),
        "sample": (
            "WarpfuseVideoSampler",
            3,
            {
                "model": "checkpoint:0",
                "vae": "checkpoint:2",
                "positive": "positive:0",
                "negative": "negative:0",
                "images": "frames:0",
                "sampler": "solver:0",
                "sigmas": "sigmas:0",
                "motion": "flow:0",
                "cross_frame": "anchor+previous",
                "control_net": "control:0",
                "control_images": "edges:0",
            },
        ),
        "video": ("CreateVideo", 4, {"images": "sample:0", "fps": "frames:2", "audio": "frames:1"}),
        "save": ("SaveVideo", 4, {**SAVE["save"][2], "filename_prefix": "video/any_checkpoint"}),
    },
    "flow_and_trust": {
        **LOAD,
        "flow": ("WarpfuseFlow", 1, {"images": "frames:0"}),
        "warp": ("WarpfuseWarp", 2, {"images": "frames:0", "motion": "flow:0"}),
        "mask": ("MaskToImage", 2, {"mask": "flow:2"}),
        "show_colours": ("PreviewImage", 3, {"images": "flow:1"}),
        "show_trust": ("PreviewImage", 3, {"images": "mask:0"}),
        "show_warped": ("PreviewImage", 3, {"images": "warp:0"}),
    },
}


def main() -> None:
    """Write every workflow, and its picture where it is asked for."""
    server, *flags = sys.argv[1:]
    with urllib.request.urlopen(f"{server}/object_info") as answer:
        schemas = json.load(answer)
    FOLDER.mkdir(exist_ok=True)
    for name, nodes in WORKFLOWS.items():
        _write(FOLDER / f"{name}.api.json", api(nodes, schemas))
        _write(FOLDER / f"{name}.json", interface(nodes, schemas))
    if "--pictures" in flags:
        picture(server)


def api(nodes: dict, schemas: dict) -> dict:
    """What POST /prompt takes as `prompt`."""
    ids = {name: str(number) for number, name in enumerate(nodes, 1)}
    return {
        ids[name]: {
            "class_type": kind,
            "inputs": {socket: _api_value(value, ids) for socket, value in _values(kind, given, schemas).items()},
        }
        for name, (kind, _, given) in nodes.items()
    }


def interface(nodes: dict, schemas: dict) -> dict:
    """What the interface opens: nodes with places, sockets and widgets, and the links between them."""
    ids = {name: number for number, name in enumerate(nodes, 1)}
    links, shown, heights = [], [], {}
    for order, (name, (kind, column, given)) in enumerate(nodes.items()):
        values, sockets = _values(kind, given, schemas), []
        for socket, spec in _specs(kind, schemas).items():
            if _is_widget(spec) and not _is_link(values.get(socket)):
                continue
            link = None
            if _is_link(values.get(socket)):
                source, slot = values[socket].split(":")
                link = len(links) + 1
                links.append([link, ids[source], int(slot), ids[name], len(sockets), _kind(spec)])
            widget = {"widget": {"name": socket}} if _is_widget(spec) else {}
            sockets.append({"name": socket, "type": _kind(spec), "link": link, **widget})
        widgets = _widgets(kind, values, schemas)
        tall = sum(4 if isinstance(value, str) and multiline else 1 for value, multiline in widgets)
        outputs = zip(schemas[kind]["output_name"], schemas[kind]["output"], strict=True)
        outputs = [{"name": label, "type": "COMBO" if isinstance(t, list) else t, "links": []} for label, t in outputs]
        height = (
            60
            + 24 * (max(len(sockets), len(outputs)) + tall)
            + (220 if kind in ("PreviewImage", "LoadImage", "LoadVideo") else 0)
        )
        top = heights.get(column, 0)
        heights[column] = top + height + GAP_PX
        shown.append(
            {
                "id": ids[name],
                "type": kind,
                "pos": [column * COLUMN_PX, top],
                "size": [WIDTH_PX, height],
                "flags": {},
                "order": order,
                "mode": 0,
                "inputs": sockets,
                "outputs": outputs,
                "properties": {"Node name for S&R": kind},
                "widgets_values": [value for value, _ in widgets],
            }
        )
    for link, source, slot, *_ in links:
        shown[source - 1]["outputs"][slot]["links"].append(link)
    return {
        "last_node_id": len(shown),
        "last_link_id": len(links),
        "nodes": shown,
        "links": links,
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def picture(server: str) -> None:
    """A picture of each workflow in ComfyUI's page."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1600, "height": 900})
        page.goto(server)
        page.wait_for_function("window.app && window.app.graph && window.app.canvas", timeout=120_000)
        page.wait_for_timeout(8000)
        page.keyboard.press("Escape")  # the templates that a first visit opens with
        page.add_style_tag(content=".litegraph-minimap, .minimap-main-container { display: none !important; }")
        page.locator(".p-dialog-mask").wait_for(state="hidden")
        for name in WORKFLOWS:
            graph = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
            page.evaluate("graph => app.loadGraphData(graph)", graph)
            page.wait_for_timeout(3000)
            shot = page.screenshot(clip=page.evaluate(_AROUND))
            with Image.open(io.BytesIO(shot)) as shown:
                shown.convert("RGB").quantize(COLOURS).save(FOLDER / f"{name}.png", optimize=True)
        browser.close()


_AROUND = """() => {
    const {offset, scale} = app.canvas.ds, canvas = app.canvas.canvas.getBoundingClientRect(), edge = 20, title = 60;
    const at = (place, axis, start) => start + (place + offset[axis]) * scale;
    const left = Math.min(...app.graph.nodes.map(n => at(n.pos[0], 0, canvas.x)));
    const top = Math.min(...app.graph.nodes.map(n => at(n.pos[1] - title, 1, canvas.y)));
    const right = Math.max(...app.graph.nodes.map(n => at(n.pos[0] + n.size[0], 0, canvas.x)));
    const bottom = Math.max(...app.graph.nodes.map(n => at(n.pos[1] + n.size[1], 1, canvas.y)));
    return {x: left - edge, y: top - edge, width: right - left + 2 * edge, height: bottom - top + 2 * edge};
}"""


def _specs(kind: str, schemas: dict) -> dict:
    """Name -> [type or options, more], the required ones first."""
    parts = schemas[kind]["input"]
    return {**parts.get("required", {}), **parts.get("optional", {})}


def _values(kind: str, given: dict, schemas: dict) -> dict:
    """What is given, and the default of every other widget."""
    values = {}
    for socket, spec in _specs(kind, schemas).items():
        if socket in given:
            values[socket] = given[socket]
        elif _is_widget(spec):
            options = spec[1].get("options", spec[0]) if _kind(spec) == "COMBO" else [None]
            values[socket] = (spec[1] if len(spec) > 1 else {}).get("default", options[0])
    return values


def _widgets(kind: str, values: dict, schemas: dict) -> list:
    """(value, has several lines) of every widget; behind a seed what becomes of it after a run."""
    found = []
    for socket, spec in _specs(kind, schemas).items():
        if not _is_widget(spec):
            continue
        more = spec[1] if len(spec) > 1 else {}
        default = more.get("default", 0)
        found.append((default if _is_link(values[socket]) else values[socket], bool(more.get("multiline"))))
        if more.get("control_after_generate"):
            found.append(("fixed", False))
    return found


def _kind(spec: list) -> str:
    return "COMBO" if isinstance(spec[0], list) else spec[0]


def _is_widget(spec: list) -> bool:
    return _kind(spec) in WIDGETS


def _is_link(value: object) -> bool:
    return isinstance(value, str) and value.rpartition(":")[2].isdigit() and value.count(":") == 1 and " " not in value


def _api_value(value: object, ids: dict) -> object:
    if not _is_link(value):
        return value
    source, slot = str(value).split(":")
    return [ids[source], int(slot)]


def _write(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
