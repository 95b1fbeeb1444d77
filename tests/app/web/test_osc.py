"""Settings by OSC: an address is a key, and what is refused is told once."""

import socket
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
from PIL import Image
from pythonosc.osc_message import OscMessage
from pythonosc.osc_message_builder import OscMessageBuilder
from pythonosc.udp_client import SimpleUDPClient
from support.waiting import PATIENCE_S, until

from warpfuse.graph.errors import ConfigError
from warpfuse.web.osc import OscServer, keys_of
from warpfuse.web.pictures import Look
from warpfuse.web.session import PageSession


@pytest.fixture
def osc(session):
    """send, said, session"""
    said = []
    with OscServer(session, 0, said.append) as server, SimpleUDPClient("127.0.0.1", server.port) as client:
        yield client.send_message, said, session


@pytest.fixture
def osc_peer():
    """osc_peer(session) -> send(address, *values, by=socket), heard(socket) and what was said."""

    @contextmanager
    def open_peer(session):
        said = []
        with OscServer(session, 0, said.append) as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:

            def send(address, *values, by=own):
                message = OscMessageBuilder(address)
                for value in values:
                    message.add_arg(value)
                by.sendto(message.build().dgram, ("127.0.0.1", server.port))

            def heard(by=own):
                by.settimeout(PATIENCE_S)
                message = OscMessage(by.recv(65536))
                return (message.address, *message.params)

            yield send, heard, said

    return open_peer


def test_an_address_is_a_key_of_the_graph_file(osc):
    send, said, session = osc
    send("/stages/fuse/weight", 0.7)
    until(lambda: session.settings()["stages"]["fuse"]["weight"] == 0.7, "the weight, as it was meant")
    send("/prompt", "negative")
    send("/steps", 2.0)
    until(lambda: session.settings()["steps"] == 2, "the steps")
    assert session.settings()["prompt"] == "negative" and not said


def test_a_recipe_of_attention_is_a_word_and_each_of_its_weights_an_address(osc):
    send, said, session = osc
    send("/stages/predict/attention", "off")
    send("/stages/predict/attention/coverage", 0.5)
    send("/prompt", "negative")
    until(lambda: session.settings()["prompt"] == "negative", "the message behind them all")
    found = session.settings()["stages"]["predict"]["attention"]
    assert (found["own"], found["anchor"], found["previous"], found["coverage"]) == (1, 0, 0, 0.5) and not said


def test_a_mask_is_turned_round_and_laid_off(keys, tmp_path):
    cv2.imwrite(str(tmp_path / "mask.png"), np.zeros((64, 96), np.uint8))
    session = PageSession({**keys, "mask": f"file:{tmp_path / 'mask.png'}"}, record_to=tmp_path)
    said = []
    try:
        session.start()
        with OscServer(session, 0, said.append) as server, SimpleUDPClient("127.0.0.1", server.port) as client:
            for address, value in (("/mask/invert", 1), ("/mask/feather_px", 6.0), ("/mask/amount", 0.25)):
                client.send_message(address, value)
            client.send_message("/prompt", "negative")
            until(lambda: session.settings()["prompt"] == "negative", "the message behind them all")
            found = session.settings()["mask"]
            assert (found["invert"], found["feather_px"], found["amount"]) == (True, 6, 0.25) and not said
            client.send_message("/mask/kind", "off")
            until(lambda: said, "a refusal")
            assert "cannot change while frames flow" in said[0]
    finally:
        session.close()


def test_a_control_is_turned_up_and_its_map_is_seen(control_bundles, tmp_path):
    keys = {"source": "pattern:64x64@25,live=1,frames=100000", "bundle": control_bundles["steered"], "steps": 2,
            "controls": {"canny": 0.1}}  # fmt: skip
    session, said = PageSession(keys, record_to=tmp_path), []
    try:
        session.start()
        with OscServer(session, 0, said.append) as server, SimpleUDPClient("127.0.0.1", server.port) as client:
            client.send_message("/controls/canny/scale", 0.75)
            client.send_message("/controls/canny/low", 20.0)
            until(lambda: session.settings()["controls"]["canny"]["low"] == 20, "the message behind them all")
            assert session.settings()["controls"]["canny"]["scale"] == 0.75 and not said
        assert "control" in session.stats()["views"]
        with session.pictures.watched():
            until(lambda: (shown := session.pictures.shown) is not None and "canny" in shown.maps, "a map")
            _, seen = session.pictures.composed(Look("control"))
        assert seen.shape == (64, 64, 3) and set(np.unique(seen)) <= {0, 255}
    finally:
        session.close()


def test_a_fusion_between_steps_is_addressed_by_its_number(osc):
    send, said, session = osc
    session.change({"stages": {"fuse": {"between": [{"kind": "reference"}, {"kind": "reference", "of": "anchor"}]}}})
    send("/stages/fuse/between/1/weight", 0.25)
    send("/stages/fuse/between/2/weight", 0.25)
    send("/stages/fuse/adain/weight", 0.5)
    until(lambda: session.settings()["stages"]["fuse"]["adain"]["weight"] == 0.5, "the message behind them all")
    found = session.settings()["stages"]["fuse"]["between"]
    assert [one["weight"] for one in found] == [None, 0.25]
    assert [line.partition(":")[0] for line in said] == ["OSC /stages/fuse/between/2/weight"]


def test_what_is_refused_is_told_once_and_changes_nothing(osc):
    send, said, session = osc
    for value in range(3):
        send("/promt", str(value))
    send("/strength", 7.0)
    send("/strength", [])
    send("/", 1)
    send("/pause", [])
    send("/strength", 0.5)
    until(lambda: session.settings()["strength"] == 0.5, "the message behind them all")
    assert [line.partition(":")[0] for line in said] == ["OSC /promt", "OSC /strength", "OSC /", "OSC /pause"]
    assert "did you mean 'prompt'" in said[0]


def test_seconds_in_front_of_an_address_make_it_a_crossfade(osc, monkeypatch):
    send, said, session = osc
    assert keys_of("/over_s/4/stages/fuse/weight", (0.5,)) == {"stages": {"fuse": {"weight": 0.5}}, "over_s": 4}
    asked = []
    monkeypatch.setattr(session, "change", lambda keys, change=session.change: (asked.append(keys), change(keys)))
    send("/over_s/4/prompt", "negative")
    send("/over_s/soon/prompt", "same")
    send("/over_s/4", 1)
    send("/strength", 0.5)
    until(lambda: session.settings()["strength"] == 0.5, "the message behind them all")
    assert session.settings()["prompt"] == "negative" and asked[0] == {"prompt": "negative", "over_s": 4}
    assert len(said) == 2 and "over_s/4/prompt" in said[0]


def test_a_look_is_recalled_and_a_run_is_started_recorded_and_ended(osc):
    send, said, session = osc
    session.learn({"dark": {"prompt": "negative", "strength": 0.5}, "bright": {"prompt": "same", "strength": 1.0}})
    send("/start", 1)
    until(lambda: session.state == "running", "a run")
    send("/look", "dark")
    until(lambda: session.settings()["prompt"] == "negative", "the look")
    assert session.settings()["strength"] == 0.5
    send("/over_s/1/preset", "bright")
    until(lambda: session.settings()["prompt"] == "same", "the other")
    send("/record", 1)
    until(lambda: (now := session.stats().get("recording")) and now["frames"] > 2, "a recording")
    send("/record", 0)
    until(lambda: session.stats()["recording"] is None, "its end")
    send("/stop", 1)
    until(lambda: session.state == "stopped", "the end")
    assert not said


def test_who_asks_gets_the_value_back_to_the_port_it_asked_from(session, osc_peer):
    with osc_peer(session) as (send, heard, said):
        send("/strength", 0.25)
        send("/get", "strength")
        assert heard() == ("/strength", 0.25)
        send("/get/stages/fuse/weight")
        assert heard() == ("/stages/fuse/weight", pytest.approx(0.8))
        send("/get", "mask")
        below = {f"/mask/{name}": value for name, value in session.settings()["mask"].items()}
        found = dict(heard() for _ in below)
        assert {key: round(value, 6) if isinstance(value, float) else value for key, value in found.items()} == below
        session.change({"seed": 2**40})
        for name, value in (("seed", 2**40), ("frames", None), ("size", [96, 64]), ("state", "stopped")):
            send("/get", name)
            found = heard()
            assert (found[0], list(found[1:]) if isinstance(value, list) else found[1]) == (f"/{name}", value)
        assert not said
        send("/get", "stregth")
        until(lambda: said, "a refusal")
        assert "there is no 'stregth' to get" in said[0]


def test_who_has_subscribed_hears_of_every_change_until_it_ends_it(session, osc_peer):
    with osc_peer(session) as (send, heard, said):
        session.change({"strength": 0.75})
        send("/subscribe", 1)
        send("/get", "bpm")
        assert heard() == ("/bpm", 120), "what was before is not told"
        session.change({"prompt": "negative", "strength": 0.75})
        assert heard() == ("/prompt", "negative"), "what did not change is not told"
        session.learn({"dark": {"prompt": "negative"}})
        assert heard() == ("/looks", "dark")
        send("/over_beats/2/look", "dark")
        send("/strength", 0.5)
        assert heard() == ("/strength", 0.5)
        send("/subscribe", 0)
        send("/strength", 1.0)
        send("/get", "prompt")
        assert heard() == ("/prompt", "negative") and not said


def test_the_newest_eight_are_told(session, osc_peer):
    with osc_peer(session) as (send, heard, _):
        send("/subscribe", 1)
        send("/get", "prompt")
        heard()
        others = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(8)]
        try:
            for other in others:
                send("/subscribe", 1, by=other)
            send("/strength", 0.5)
            send("/get", "prompt")
            assert heard()[0] == "/prompt", "it has made room"
            assert heard(others[-1]) == ("/strength", 0.5) == heard(others[0])
        finally:
            for other in others:
                other.close()


def test_a_picture_is_kept_and_its_name_answered(session, osc_peer):
    session.start()
    until(lambda: session.pictures.shown is not None, "a picture")
    with osc_peer(session) as (send, heard, said):
        files = []
        for value in (1, 0, 1):  # a button that is let go sends 0
            send("/snapshot", value)
            if value:
                address, file = heard()
                assert address == "/snapshot" and cv2.imread(file).shape == (64, 96, 3)
                files.append(file)
        assert len(set(files)) == 2 and not said


def test_the_tempo_is_tapped(osc):
    send, said, session = osc
    send("/bpm", 90.0)
    until(lambda: session.settings()["bpm"] == 90, "a tempo")
    for _ in range(3):
        send("/tap", 1)
        send("/tap", 0)
    until(lambda: session.settings()["bpm"] != 90, "another")
    send("/stop", 0)
    assert not said


def test_values_of_faders_are_what_they_show():
    assert keys_of("/strength", (0.699999988079071,)) == {"strength": 0.7}
    assert keys_of("/size", (512, 288)) == {"size": [512, 288]}
    for address, values in (("/strength", ()), ("", (1,)), ("//", (1,))):
        with pytest.raises(ConfigError):
            keys_of(address, values)


def test_another_address_is_listened_on_where_it_is_asked_for(session):
    with OscServer(session, 0, print, "0.0.0.0") as server, SimpleUDPClient("127.0.0.2", server.port) as client:
        client.send_message("/strength", 0.25)
        until(lambda: session.settings()["strength"] == 0.25, "a message to another address")
    with pytest.raises(ConfigError, match=r"on 192\.0\.2\.1 port .*--osc-host"):
        OscServer(session, 0, print, "192.0.2.1")


def test_a_port_that_is_taken_is_told(osc, session):
    with OscServer(session, 0, print) as other, pytest.raises(ConfigError, match="Try another --osc"):
        OscServer(session, other.port, print)


def test_a_style_image_is_turned_up_and_its_picture_changed(image_bundles, tmp_path):
    files = [str(tmp_path / f"{name}.png") for name in ("red", "blue")]
    for file, colour in zip(files, ((250, 30, 0), (0, 30, 250)), strict=True):
        Image.new("RGB", (80, 60), colour).save(file)
    keys = {"source": "pattern:64x64@25,live=1,frames=100000", "bundle": image_bundles["shown"], "steps": 2,
            "images": {"look": files[0]}}  # fmt: skip
    session, said = PageSession(keys, record_to=tmp_path), []
    try:
        session.start()
        with OscServer(session, 0, said.append) as server, SimpleUDPClient("127.0.0.1", server.port) as client:
            client.send_message("/images/look/scale", 0.75)
            client.send_message("/images/look/picture", files[1])
            until(lambda: session.settings()["images"]["look"]["picture"] == files[1], "the message behind them all")
            assert session.settings()["images"]["look"]["scale"] == 0.75 and not said
            client.send_message("/images/look/picture", str(tmp_path / "none.png"))
            until(lambda: said, "a refusal")
            assert "No such file" in said[0]
    finally:
        session.close()
