"""The interface: the keys of a graph file in, our own lines out."""

import itertools
import re
from html.parser import HTMLParser
from importlib import resources
from typing import ClassVar

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from support.waiting import until

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import validate
from warpfuse.web.presets import dump, parse
from warpfuse.web.security import AccessRules
from warpfuse.web.server import application
from warpfuse.web.session import PageSession


@pytest.fixture
def client(session, presets, library):
    with TestClient(application(session, presets, AccessRules(), library), base_url="http://127.0.0.1") as client:
        yield client


def test_figures_stay_when_the_run_is_over(client, session):
    client.post("/api/start", json={"source": "pattern:96x64@25,frames=12"})
    session.wait()
    until(lambda: client.get("/api/stats").json()["state"] == "ended", "the end")
    told = client.get("/api/stats").json()
    assert told["frames"] == {"in": 12, "out": 12} and told["fps"] > 0 and told["latency_ms"]["p50"] > 0
    assert told["stages"] and told["backend"] and told["size"] == [96, 64]
    assert told["first_picture_s"] > 0 and told["dropped_share"] == 0 and told["control_ms"]["count"] == 0
    client.post("/api/start", json={"source": "pattern:96x64@1,live=1"})
    assert client.get("/api/stats").json()["frames"]["in"] < 12, "those of the next run are its own"


def test_settings_are_the_keys_of_a_graph_file(client):
    assert client.get("/api/settings").json()["prompt"] == "same"
    changed = client.patch("/api/settings", json={"prompt": "negative", "stages": {"fuse": {"weight": 0.25}}}).json()
    assert changed["version"] is None, "nothing runs yet"
    assert changed["settings"]["stages"]["fuse"]["weight"] == 0.25
    assert client.get("/api/settings").json() == changed["settings"]


def test_a_change_may_take_seconds_and_a_start_takes_none(client, session):
    assert client.patch("/api/settings", json={"strength": 0.5, "over_s": 2}).json()["version"] is None
    client.post("/api/start", json={"prompt": "same", "over_s": 2})
    assert client.patch("/api/settings", json={"prompt": "negative", "over_s": 2}).json()["version"] == 1
    assert "over_s" not in client.get("/api/settings").json()
    assert "over_s" not in client.put("/api/presets/kept").text and "over_s" not in client.get("/api/presets/kept").text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"prompt": "negative", "over_s": "soon"}, "over_s: expected seconds from 0 to 3600, got 'soon'"),
        ({"promt": "same"}, "unknown key 'promt'; did you mean 'prompt'?"),
        ({"steps": 99}, "steps: "),
        ({"fusion": "much"}, "fusion: expected a number from 0 to 1, got 'much'"),
        ([1, 2], "valid dictionary"),
        ("text", "valid dictionary"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(client, body, words):
    answer = client.patch("/api/settings", json=body)
    assert answer.status_code == 422
    assert words in answer.json()["error"] and "\n" not in answer.json()["error"]


def test_what_is_no_json_is_told_too(client):
    answer = client.patch("/api/settings", content=b"{", headers={"content-type": "application/json"})
    assert answer.status_code == 422 and "JSON" in answer.json()["error"]


def test_a_run_from_start_to_stop(client, session):
    assert client.get("/api/snapshot.png").status_code == 204
    assert client.post("/api/pause").status_code == 409
    assert client.post("/api/start").json()["state"] == "running"
    until(lambda: client.get("/api/stats").json()["fps"] > 0, "frames")
    stats = client.get("/api/stats").json()
    assert stats["backend"] and stats["size"] == [96, 64] and stats["latency_ms"]["p50"] > 0
    assert {"encode", "predict", "decode"} <= stats["stages"].keys()
    assert any("networks: exact" in line for line in stats["log"])
    png = client.get("/api/snapshot.png?view=side&overlay=flow")
    assert png.headers["content-type"] == "image/png" and png.content.startswith(b"\x89PNG")
    refused = client.patch("/api/settings", json={"seed": 4})
    assert (refused.status_code, refused.json()["restart"]) == (409, True)
    assert client.post("/api/restart", json={"seed": 4}).json()["state"] == "running"
    assert client.post("/api/pause").json()["state"] == "paused"
    assert client.post("/api/resume").json()["state"] == "running"
    file = client.post("/api/record", json={"on": True}).json()["file"]
    assert file.endswith(".mp4")
    until(lambda: client.get("/api/stats").json()["recording"]["frames"], "a recorded frame")
    assert client.post("/api/record", json={"on": False}).json() == {"file": None}
    assert client.post("/api/stop").json()["state"] == "stopped"


def test_the_socket_tells_stats_and_what_others_change(client, session):
    with client.websocket_connect("/api/live", headers={"host": "127.0.0.1"}) as socket:
        assert socket.receive_json()["settings"]["prompt"] == "same"
        assert socket.receive_json()["state"] == "stopped"
        client.patch("/api/settings", json={"prompt": "negative"})
        while (told := socket.receive_json())["type"] == "stats":
            assert told["state"] == "stopped"
        assert told["settings"]["prompt"] == "negative"
        assert socket.receive_json()["type"] == "stats", "stats go on"


def test_a_preset_recalls_the_whole_look_the_defaults_in_it_too(client):
    before = client.get("/api/settings").json()
    client.put("/api/presets/first")
    look = {"strength": 0.5, "seed": 3, "steps": 2, "fusion": 0.1, "background": "#102030", "prompt": "negative"}
    more = {"pace": {"skip": 2}, "stages": {"warp": {"mode": "bilinear"}}}
    changed = client.patch("/api/settings", json={**look, **more}).json()["settings"]
    assert {key for key in before if before[key] != changed[key]} == {*look, "pace", "stages"} - {"fusion"}
    assert client.post("/api/presets/first/load").json()["settings"] == before


def test_presets_have_the_order_in_which_they_were_saved_and_keep_it(client, presets, session):
    """By it they have the keys 1 to 9 of the page."""
    names = ["storm", "calm", "ink"]
    for name in names:
        client.put(f"/api/presets/{name}")
    assert client.get("/api/presets").json() == names != sorted(names)
    assert client.put("/api/presets/storm").json() == {"names": names}, "saved again, it keeps its key"
    assert presets.names() == names, "the page that is opened next has the same"


def test_every_button_of_the_page_has_a_tip(client):
    class Buttons(HTMLParser):
        bare: ClassVar[list[str]] = []

        def handle_starttag(self, tag, attrs):
            about = dict(attrs)
            button = tag == "button" or "button" in (about.get("class") or "").split()
            if button and not about.get("title"):
                self.bare.append(about.get("id") or str(about))

    buttons = Buttons()
    buttons.feed(client.get("/").text)
    assert not buttons.bare
    buttons.feed("<button id='control'>Go</button>")
    assert buttons.bare == ["control"], "control"


def test_a_preset_is_a_look_that_everybody_recalls_by_its_name(client, session, presets, keys, tmp_path):
    client.patch("/api/settings", json={"prompt": "negative", "strength": 0.5})
    client.put("/api/presets/dark")
    client.patch("/api/settings", json={"looks": {"bright": {"prompt": "same", "strength": 1.0}}})
    client.post("/api/start")
    assert client.patch("/api/settings", json={"look": "bright", "over_s": 2}).status_code == 200
    assert client.get("/api/settings").json()["prompt"] == "same"
    changed = client.patch("/api/settings", json={"look": "dark", "strength": 0.75}).json()["settings"]
    assert (changed["prompt"], changed["strength"], session.state) == ("negative", 0.75, "running")
    assert client.post("/api/presets/dark/load?over_s=0.1").json()["settings"]["strength"] == 0.5
    assert "there is no look 'dim'; there are: " in client.patch("/api/settings", json={"look": "dim"}).json()["error"]
    client.delete("/api/presets/dark")
    assert client.patch("/api/settings", json={"look": "dark"}).status_code == 422


def test_a_show_is_taken_with_its_looks_and_refused_where_it_is_of_another_bundle(client, keys):
    show = {"bundle": keys["bundle"], "bpm": 100, "looks": {"dark": {"prompt": "negative"}}, "midi": {"cc 7": "bpm"},
            "schedule": {"every": "8 beats", "cues": ["dark"], "on": False}}  # fmt: skip
    assert client.put("/api/show", content=dump(show)).json() == {"names": ["dark"]}
    assert client.post("/api/presets/dark/load").status_code == 200
    settings = client.get("/api/settings").json()
    assert (settings["bpm"], settings["prompt"]) == (100, "negative") and "cc 7" in settings["midi"]
    kept = parse(client.get("/api/show").text)
    assert (kept["bpm"], kept["looks"], kept["schedule"]["cues"]) == (100, show["looks"], ["dark"])
    assert parse(client.get("/api/presets/dark").text) == {"prompt": "negative"}
    assert client.patch("/api/settings", json={"schedule": {"cues": []}}).status_code == 200
    assert client.delete("/api/presets/dark").json() == {"names": []}
    for text, words in (("bundle: other\nbpm: 90\n", "of bundle 'other'"), ("prompt: same\n", "this is no show")):
        answer = client.put("/api/show", content=text)
        assert answer.status_code == 422 and words in answer.json()["error"]


def test_the_tempo_is_tapped_by_the_clock_of_who_taps(client):
    found = [client.post("/api/tap", json={"at_ms": at}).json()["bpm"] for at in (1000.0, 1500.0, 2000.0)]
    assert found == [None, 120, 120] and client.get("/api/settings").json()["bpm"] == 120
    assert client.post("/api/tap", json={"at_ms": -1}).status_code == 422


def test_without_a_midi_port_nothing_is_learned(client):
    assert client.get("/api/midi").json() == {"port": None, "learning": None}
    answer = client.post("/api/midi/learn", json={"to": "strength"})
    assert answer.status_code == 422 and "warpfuse serve --midi PORT" in answer.json()["error"]


def test_a_show_is_a_graph_file_that_another_session_begins_with(client, keys, tmp_path, presets, library):
    client.patch("/api/settings", json={"prompt": "negative", "strength": 0.5})
    client.put("/api/presets/dark")
    show = parse(client.get("/api/show").text)
    assert show["bundle"] == keys["bundle"] and "source" not in show["looks"]["dark"]
    other = PageSession({**show, "source": keys["source"], "look": "dark"}, record_to=tmp_path)
    assert (other.settings()["prompt"], other.settings()["strength"]) == ("negative", 0.5)
    presets.save("old", "prompt: same\nstrength: 0.25\n")
    application(other, presets, AccessRules(), library)
    other.change({"look": "old"})
    assert other.settings()["strength"] == 0.25, "what was kept before is known from the start"


def test_a_preset_leaves_alone_what_is_no_look(client):
    client.put("/api/presets/first")
    client.patch("/api/settings", json={"threads": 1, "name": "desk"})
    loaded = client.post("/api/presets/first/load").json()["settings"]
    assert (loaded["threads"], loaded["name"]) == (1, "desk")


@pytest.mark.parametrize("lora_bundles", ["sd15"], indirect=True)
def test_a_preset_recalls_the_scale_of_a_lora_that_was_left_at_its_default(lora_bundles, keys, presets, tmp_path):
    session = PageSession({**keys, "bundle": str(lora_bundles.live), "prompt": "a"}, record_to=tmp_path)
    presets.save("first", dump(session.held.given()))
    session.change({"loras": {"paint": 0.1}})
    session.change(presets.load("first"))
    assert session.settings()["loras"] == {"paint": 0.75, "line": 0.0}


def test_a_preset_is_a_graph_file(client):
    client.put("/api/presets/Sunday paper")
    file = client.get("/api/presets/Sunday%20paper")
    assert file.headers["content-disposition"] == 'attachment; filename="Sunday paper.yaml"'
    assert "prompt: same" in file.text and "record" not in file.text
    client.patch("/api/settings", json={"prompt": "negative"})
    assert client.post("/api/presets/Sunday paper/load").json()["settings"]["prompt"] == "same"
    assert client.delete("/api/presets/Sunday paper").json() == {"names": []}
    assert client.get("/api/presets").json() == []


@pytest.mark.parametrize("path", ["..%2f..%2fetc%2fpasswd", "%2e%2e", "..%5c..%5cx", "a%00b", ".ssh"])
def test_preset_names_cannot_leave_their_folder(client, path):
    for method in ("GET", "PUT", "DELETE"):
        answer = client.request(method, f"/api/presets/{path}")
        assert answer.status_code in (404, 405, 422), (method, answer.text)
    for file in ("/static/../server.py", "/static/%2e%2e/server.py", "/static//etc/passwd"):
        assert client.get(file).status_code == 404


def test_unusable_presets_are_refused(client):
    bomb = "a: &a [x, x]\nprompt: [*a, *a]\n"
    answer = client.put("/api/presets/bomb", content=bomb)
    assert answer.status_code == 422 and "aliases" in answer.json()["error"]
    assert client.put("/api/presets/big", content=b"x" * 200_000).status_code == 413
    assert client.put("/api/presets/latin", content=b"prompt: \xff").status_code == 422
    assert client.get("/api/presets").json() == []


def test_the_bundle_tells_its_styles(client):
    bundle = client.get("/api/bundle").json()
    assert bundle["name"] == "exact" and bundle["default"] == "negative" and not bundle["text"]
    assert set(bundle["styles"]) == {"same", "negative", "noisy"} and "embedded" in bundle["known"]
    assert bundle["thumbs"] == {} and client.get("/api/bundle/thumbs/negative").status_code == 404


def test_each_style_of_the_embedded_bundle_has_a_small_picture_of_its_own(client):
    client.patch("/api/settings", json={"bundle": "embedded", "prompt": ""})
    bundle = client.get("/api/bundle").json()
    assert set(bundle["thumbs"]) == set(bundle["styles"]) and len(bundle["styles"]) >= 12
    kept = []
    for name in bundle["styles"]:
        answer = client.get(f"/api/bundle/thumbs/{name}")
        assert answer.headers["content-type"] == "image/jpeg" and len(answer.content) < 40_000
        kept.append(cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR).astype(int))
    assert all(np.abs(a - b).mean() > 4 for a, b in itertools.combinations(kept, 2))
    for name in ("none", "..%2Fbundle.json", "embedded"):
        assert client.get(f"/api/bundle/thumbs/{name}").status_code == 404


def test_every_page_and_file_comes_from_here(client):
    """No script, style, font or picture of another server, and none inline: what the policy would refuse."""
    pages = [client.get(path).text for path in ("/", "/view", "/docs")]
    for page in pages:
        assert "http://" not in page and "https://" not in page and "style=" not in page
        assert "<script>" not in page and "onclick=" not in page
    for link in {part.split('"')[0] for page in pages for part in page.split('="/static/')[1:]}:
        assert client.get(f"/static/{link}").status_code == 200, link
    assert "/api/settings" in client.get("/openapi.json").json()["paths"]


@pytest.mark.parametrize(
    ("headers", "status"), [({"host": "evil.example"}, 421), ({"origin": "http://evil.example"}, 403), ({}, None)]
)
def test_no_route_is_open_to_a_foreign_host_or_changes_anything_for_a_foreign_origin(client, session, headers, status):
    """{} is the control: to these very requests the application answers itself."""
    paths = client.get("/openapi.json").json()["paths"]
    asked = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    asked += [("GET", path) for path in ("/", "/view", "/docs", "/static/page.js", "/openapi.json")]
    endless = "/stream.mjpeg", "/api/start", "/api/restart"
    for method, path in asked:
        if status == 403 and method == "GET":
            continue  # a link from elsewhere
        if status is None and path in endless:
            continue  # pictures without end, and a run that goes on
        answer = client.request(method, path.format(name="x", number="x", style="x"), headers=headers)
        assert (answer.status_code == status) if status else (answer.status_code not in (403, 421)), (method, path)
    assert len(asked) > 15 and {path for _, path in asked}.issuperset(endless)
    assert session.state == "stopped"
    if status:
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/api/live", headers=headers):
            pass


def test_a_keyframe_is_painted_over_the_frame_that_was_saved(client, session, tmp_path):
    assert client.get("/api/keyframe/frame.png").status_code == 204, "there is none yet"
    client.post("/api/start", json={"source": "pattern:96x64@25,live=1,frames=100000,motion=still"})
    until(lambda: session.pictures.shown is not None, "a picture")
    frame = cv2.imdecode(np.frombuffer(client.get("/api/keyframe/frame.png").content, np.uint8), cv2.IMREAD_COLOR)
    assert frame.shape == (64, 96, 3)
    painted = 255 - frame
    told = client.put("/api/keyframe", content=cv2.imencode(".png", painted)[1].tobytes()).json()
    anchor = told["settings"]["stages"]["anchor"]
    assert anchor["at"] is None and told["version"] == 1
    assert np.array_equal(cv2.imread(anchor["picture"]), painted) and np.array_equal(cv2.imread(anchor["frame"]), frame)

    def shows_it():
        shown = session.pictures.shown.styled[..., ::-1].astype(int)
        return np.abs(shown - painted).max() <= 1

    until(shows_it, "the keyframe")
    client.delete("/api/keyframe")
    assert client.get("/api/settings").json()["stages"]["anchor"]["picture"] == ""
    until(lambda: not shows_it(), "the style")


def test_what_is_no_keyframe_is_one_line_and_not_kept(client, session, tmp_path):
    answer = client.put("/api/keyframe", content=b"no picture")
    assert answer.status_code == 422 and "it holds no picture" in answer.json()["error"]
    assert not list((tmp_path / "recordings").glob("*"))
    assert client.get("/api/settings").json()["stages"]["anchor"]["picture"] == ""
    answer = client.put("/api/keyframe", content=bytes((32 << 20) + 1))
    assert answer.status_code == 422 and "at most 32 MiB" in answer.json()["error"]


def test_of_others_a_keyframe_is_what_they_sent_and_no_file_of_this_machine(keys, tmp_path):
    session = PageSession(keys, record_to=tmp_path / "recordings", fixed_files=True)
    mine = tmp_path / "mine.png"
    cv2.imwrite(str(mine), np.zeros((64, 96, 3), np.uint8))
    with pytest.raises(ConfigError, match="files can be named on the command line only"):
        session.change({"stages": {"anchor": {"picture": str(mine)}}})
    session.take_keyframe(mine.read_bytes())
    assert session.settings()["stages"]["anchor"]["picture"].startswith(str(tmp_path / "recordings" / "keyframe-"))


def test_an_offer_that_is_none_is_refused(client):
    assert client.post("/api/webrtc", json={"sdp": "nonsense"}).status_code == 422
    assert client.patch("/api/webrtc/nobody", json={"view": "side"}).status_code == 422
    assert client.delete("/api/webrtc/nobody").status_code == 200


def test_every_control_of_the_page_is_a_key_that_there_is():
    page = (resources.files("warpfuse.web") / "static" / "page.html").read_text(encoding="utf-8")
    keys = re.findall(r'data-key="([^"]+)"', page)
    known = validate({}).model_dump()
    for key in keys:
        inner = known
        for part in key.split("."):
            assert part in inner, key
            inner = inner[part]
    weights = {"own", "anchor", "previous", "coverage", "pull"}
    assert {f"stages.predict.attention.{name}" for name in weights} <= set(keys)


@pytest.mark.parametrize("running", [False, True])
def test_code_cannot_be_named_by_the_page_in_any_way(client, session, tmp_path, running):
    """Neither as a key nor in a preset, at rest or while it runs; nothing of the file is run."""
    file = tmp_path / "mine.py"
    file.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef picture(rgb, stamp):\n    pass\n")
    keys = {"hooks": str(file)}
    if running:
        client.post("/api/start")
    for answer in (
        client.patch("/api/settings", json=keys),
        client.post("/api/restart" if running else "/api/start", json=keys),
        client.patch("/api/settings", json={"looks": {"a": keys}}),
        client.put("/api/presets/mine", content=f"hooks: {file}\n"),
    ):
        assert answer.status_code == 422 and "hooks" in answer.json()["error"]
    assert client.get("/api/settings").json()["hooks"] == "" and not (tmp_path / "ran").exists()
    assert session.state == ("running" if running else "stopped")
