"""The page in a real browser: it shows what runs, does what is asked, by keyboard alone too, and can be read by all."""

import io
import shutil
import socket
import threading
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from support.waiting import PATIENCE_S, until

from warpfuse.web.pictures import Look
from warpfuse.web.session import PageSession

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright: it drives the browser")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is absent: apt-get install chromium"),
    pytest.mark.timeout(180),
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"]
WIDTHS = (360, 900, 1600)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def complaints():
    """What the browser's console held against the page."""
    return []


@pytest.fixture
def visit(browser, complaints):
    """visit(address, **context) -> the page there, in a context of its own."""
    contexts = []

    def go(address, **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE_S * 1000)
        page.on("console", lambda told: complaints.append(told.text) if told.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        return page

    yield go
    for context in contexts:
        context.close()


@pytest.fixture
def running(session, page, visit):
    """A run, and its page with a picture on it."""
    session.start({"fusion": 0})
    with page(session) as address:
        shown = visit(address)
        shown.locator("#blank").wait_for(state="hidden")
        yield shown


def pixels(shown):
    """The preview as it is on the screen, [h, w, 3]."""
    import cv2

    data = shown.locator("#screen").screenshot()
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).astype(int)


def apart(one, other):
    return np.abs(one - other).mean()


def test_the_preview_moves_and_the_console_is_silent(running, complaints):
    assert running.locator("#via").inner_text() == "via WebRTC"
    first = pixels(running)
    until(lambda: apart(pixels(running), first) > 3, "another picture")
    running.get_by_text("Running", exact=True).wait_for()
    until(lambda: running.locator("#fps").inner_text() not in ("–", "0.0"), "a rate")
    assert complaints == []


def middle(shown):
    """The middle of the preview, clear of what frames it."""
    picture = pixels(shown)
    h, w = picture.shape[0] // 4, picture.shape[1] // 4
    return picture[h:-h, w:-w]


def test_with_seconds_set_a_slider_and_a_prompt_cross_over(running, session, monkeypatch):
    asked, change = [], session.change
    monkeypatch.setattr(session, "change", lambda keys: (asked.append(keys), change(keys))[1])
    running.locator("#strength").fill("0.5")
    running.locator("#over").fill("20")
    running.locator("#fusion").fill("0.5")
    running.locator("#prompt").fill("negative")
    running.locator("#prompt").press("Enter")
    until(lambda: session.settings()["prompt"] == "negative", "the prompt")
    until(lambda: len(asked) == 3, "three changes")
    assert [keys.get("over_s") for keys in asked] == [None, 20, 20]
    assert running.locator("output[for=over]").inner_text() == "20"


@pytest.mark.parametrize("by", ["WebRTC", "MJPEG"])
def test_a_prompt_is_seen_in_the_picture(running, session, by):
    running.locator("#transport").select_option(by.lower())
    running.locator("#via", has_text=by).wait_for()
    until(lambda: middle(running).std() > 15, "the source, as `same` shows it")
    running.get_by_role("radio", name="negative").click()
    until(lambda: session.settings()["prompt"] == "negative", "the prompt of the chip")
    until(lambda: " ms" in running.locator("#drops dd").first.inner_text(), "how long that took to be seen")
    running.locator("#prompt").fill("same, negative")
    running.locator("#prompt").press("Enter")
    until(lambda: middle(running).std() < 5 and abs(middle(running).mean() - 127) < 6, "grey: half of each")


def test_side_by_side_shows_the_source_beside_what_was_made_of_it(running, session):
    running.get_by_label("Side by side").check(force=True)

    def likeness():
        picture = pixels(running)
        picture = picture[len(picture) // 10 : -len(picture) // 5]  # without the names at its foot
        centre, gap = picture.shape[1] // 2, round(picture.shape[1] * 2 / 196)
        wide = centre - gap - 8
        left, right = picture[:, centre - gap - wide : centre - gap], picture[:, centre + gap : centre + gap + wide]
        return np.corrcoef(left.ravel(), right.ravel())[0, 1]

    until(lambda: likeness() > 0.8, "a picture twice")
    session.change({"prompt": "negative"})
    until(lambda: likeness() < -0.8, "a picture and its negative")


def test_an_overlay_is_seen(running):
    def colourful():
        return np.ptp(pixels(running), axis=2).mean()

    plain = colourful()
    running.get_by_role("radio", name="Trust").check(force=True)
    running.get_by_role("radio", name="Flow").check(force=True)
    until(lambda: colourful() > plain + 5, "the colours of the flow")


def test_webrtc_that_does_not_connect_gives_way_to_jpegs(session, page, visit, browser):
    session.start()
    with page(session) as address:
        context = browser.new_context()
        context.add_init_script(
            "RTCPeerConnection.prototype.setRemoteDescription = () => new Promise(() => {});"  # its answer is lost
        )
        shown = context.new_page()
        try:
            shown.goto(address)
            shown.locator("#via", has_text="via MJPEG").wait_for(timeout=PATIENCE_S * 1000)
            first = pixels(shown)
            until(lambda: apart(pixels(shown), first) > 3, "another picture")
        finally:
            context.close()


def test_the_main_controls_work_by_keyboard_alone(running, session):
    keyboard = running.keyboard

    def reach(selector):
        for _ in range(60):
            keyboard.press("Tab")
            if running.evaluate("s => document.activeElement?.matches(s)", selector):
                ring = running.evaluate(
                    "() => [document.activeElement, document.activeElement.nextElementSibling]"
                    ".some((e) => e && getComputedStyle(e).outlineStyle !== 'none')"
                )
                assert ring, f"the focus on {selector} is not seen"
                return
        raise AssertionError(f"{selector} cannot be reached by Tab")

    reach("#pause")
    keyboard.press("Enter")
    until(lambda: session.state == "paused", "the pause")
    running.locator("#pause", has_text="Resume").wait_for()
    keyboard.press("Space")
    until(lambda: session.state == "running", "the end of the pause")
    reach("[name=view]")
    keyboard.press("ArrowRight")
    assert running.locator("[name=view][value=source]").is_checked()
    reach("#chips [role=radio]")
    keyboard.press("ArrowRight")
    until(lambda: session.settings()["prompt"] == "negative", "the next style")
    reach("#prompt")
    keyboard.press("Control+a")
    keyboard.type("same:3, noisy:1")
    keyboard.press("Enter")
    until(lambda: session.settings()["prompt"] == "same:3, noisy:1", "the typed prompt")
    reach("#strength")
    keyboard.press("ArrowLeft")
    until(lambda: session.settings()["strength"] == 0.99, "the strength")
    reach("#fusion")
    keyboard.press("ArrowRight")
    until(lambda: session.settings()["stages"]["fuse"]["weight"] == 0.01, "the fusion")
    running.evaluate("document.activeElement.blur()")
    reach("#stop")
    keyboard.press("Enter")
    until(lambda: session.state == "stopped", "the end")
    until(lambda: running.evaluate("document.activeElement.id") == "start", "the focus on what took its place")
    keyboard.press("Enter")
    until(lambda: session.state == "running", "another run")


def test_a_control_has_a_slider_and_its_map_a_view(control_bundles, tmp_path, page, visit, complaints):
    """Of a run with controls; another has neither (`running`)."""
    keys = {"source": "pattern:64x64@25,live=1,frames=100000", "bundle": control_bundles["steered"], "steps": 2,
            "fusion": 0, "controls": {"canny": {"scale": 0.25, "low": 20, "high": 40}}}  # fmt: skip
    session = PageSession(keys, record_to=tmp_path)
    try:
        session.start()
        with page(session) as address:
            shown = visit(address)
            shown.locator("#blank").wait_for(state="hidden")
            slider = shown.get_by_label("canny", exact=True)
            assert slider.input_value() == "0.25"
            slider.fill("0.75")
            until(lambda: session.settings()["controls"]["canny"]["scale"] == 0.75, "the scale")
            assert session.settings()["controls"]["canny"]["low"] == 20
            shown.get_by_text("canny: canny").click()
            shown.get_by_label("high", exact=True).fill("300")
            shown.get_by_label("window to", exact=True).fill("900")
            shown.get_by_label("window from", exact=True).fill("950")
            until(lambda: session.settings()["controls"]["canny"]["window"] == [950, 950], "one end pushes the other")
            assert session.settings()["controls"]["canny"]["high"] == 300
            shown.get_by_label("window from", exact=True).fill("0")
            until(lambda: session.settings()["controls"]["canny"]["window"] == [0, 950], "the window")
            styled = pixels(shown)
            shown.locator("[name=view][value=control]").check()
            until(lambda: apart(pixels(shown), styled) > 10, "the map in the place of the styled picture")
        assert complaints == []
    finally:
        session.close()


def test_a_picture_is_given_as_the_style(image_bundles, tmp_path, page, visit, complaints):
    keys = {
        "source": "pattern:64x64@25,live=1,frames=100000",
        "bundle": image_bundles["shown"],
        "steps": 2,
        "fusion": 0,
    }
    session = PageSession(keys, record_to=tmp_path, fixed_files=True, style_pictures=tmp_path / "kept")
    large = tmp_path / "large.png"
    cv2.imwrite(str(large), np.random.default_rng(0).integers(0, 255, (700, 900, 3), np.uint8))  # more than is taken
    try:
        session.start()
        with page(session) as address:
            shown = visit(address)
            shown.locator("#blank").wait_for(state="hidden")
            slider = shown.get_by_label("look", exact=True)
            slider.wait_for()
            assert slider.is_disabled() and shown.locator("#thumb-look").is_hidden()
            assert slider.input_value() == "0" and shown.locator("output[for=image-look]").inner_text() == "0.00"
            shown.get_by_label("Picture of look").set_input_files(large)
            until(lambda: "look" in session.settings()["images"], "the picture")
            image = session.settings()["images"]["look"]
            assert image["scale"] == 0.6 and Path(image["picture"]).parent == tmp_path / "kept"
            with Image.open(image["picture"]) as kept:
                assert kept.size == (448, 348)
            until(
                lambda: shown.locator("#thumb-look").evaluate("e => e.complete && e.naturalWidth > 0"), "the thumbnail"
            )
            slider.fill("1.5")
            until(lambda: session.settings()["images"]["look"]["scale"] == 1.5, "the scale")
            widths = [shown.locator(f"#image-{name}").bounding_box()["width"] for name in ("look", "mood")]
            assert widths[0] == widths[1], "with a picture and without"
            shown.get_by_text("look: layers").click()
            shown.locator("#key-images-look-style").fill("0.5")
            shown.locator("#key-images-look-style").press("Enter")
            until(lambda: session.settings()["images"]["look"]["style"] == 0.5, "the scale of the layers of style")
        assert complaints == []
    finally:
        session.close()


def test_a_mask_has_controls_where_there_is_one(running, session, tmp_path):
    assert running.locator("#mask").is_hidden()
    assert running.locator("#steering").is_hidden() and running.locator("[name=view][value=control]").is_disabled()
    cv2.imwrite(str(tmp_path / "mask.png"), np.zeros((64, 96), np.uint8))
    running.locator("#mask-of").fill(f"file:{tmp_path / 'mask.png'}")
    running.locator("#apply").click()
    until(lambda: session.state == "running" and session.settings()["mask"]["kind"] == "file", "a run with a mask")
    running.locator("#mask").wait_for()
    running.locator("[name=view][value=mask]").check()
    until(lambda: np.median(pixels(running)) < 16, "the mask, which is black")
    running.locator("[name=view][value=styled]").check()
    running.locator("#mask-invert").select_option("true")
    until(lambda: session.settings()["mask"]["invert"], "the rest")
    running.locator("#mask-feather").fill("9")
    running.locator("#mask-amount").fill("0.5")
    until(lambda: session.settings()["mask"]["amount"] == 0.5, "half of it")
    assert session.settings()["mask"]["feather_px"] == 9
    assert running.locator("#mask-of").input_value().startswith("file:")
    running.locator("#mask-of").fill("")
    running.locator("#apply").click()
    until(lambda: session.settings()["mask"]["kind"] == "off", "a run without")


@pytest.fixture
def still(session, page, visit):
    """A run of a source that stands still, so that a keyframe is in sight whenever it comes, and its page."""
    session.start({"fusion": 0, "source": "pattern:96x64@25,live=1,frames=100000,motion=still"})
    with page(session) as address:
        shown = visit(address)
        shown.locator("#blank").wait_for(state="hidden")
        yield shown


def test_a_frame_is_saved_painted_over_and_shown(still, session, tmp_path, complaints):
    assert still.locator("#keyframe-forget").is_hidden()
    with still.expect_download() as saving:
        still.locator("#keyframe-save").click()
    saving.value.save_as(tmp_path / "frame.png")
    frame = cv2.imread(str(tmp_path / "frame.png"))
    assert frame.shape == (64, 96, 3)
    painted = tmp_path / "painted.png"
    cv2.imwrite(str(painted), np.full_like(frame, (0, 0, 255)))
    still.locator("#keyframe-file").set_input_files(painted)
    still.locator("#keyframe-forget").wait_for()
    until(lambda: np.abs(session.pictures.shown.styled.astype(int) - (255, 0, 0)).mean() < 4, "the keyframe")
    still.locator("#keyframe-weight").fill("0.5")
    until(lambda: session.settings()["stages"]["anchor"]["weight"] == 0.5, "half of it")
    still.locator("#keyframe-forget").click()
    until(lambda: not session.settings()["stages"]["anchor"]["picture"], "none")
    still.locator("#keyframe-forget").wait_for(state="hidden")
    assert not complaints


def test_a_blend_is_made_with_the_slider(running, session):
    running.locator("#other").select_option("negative")
    until(lambda: session.settings()["prompt"] == "same:1, negative:1", "half of each")
    running.locator("#mix").fill("25")
    until(lambda: session.settings()["prompt"] == "same:3, negative:1", "a quarter")
    assert running.locator("#mixed").inner_text() == "25 %"
    running.locator("#other").select_option("")
    until(lambda: session.settings()["prompt"] == "same", "one style")


def test_what_is_refused_is_told_and_a_restart_is_offered(running, session, complaints):
    running.locator("#prompt").fill("sane")
    running.locator("#prompt").press("Enter")
    running.get_by_role("alert").get_by_text("did you mean 'same'?").wait_for()
    running.locator("#guidance").evaluate("e => e.closest('details').open = true")
    running.locator("#skip").fill("2")
    running.get_by_role("button", name="Restart with it").click()
    until(lambda: session.settings()["pace"]["skip"] == 2 and session.state == "running", "a run that holds frames")
    assert all("422" in line or "409" in line for line in complaints), complaints


def test_what_a_graph_is_built_with_is_applied_by_a_restart(running, session):
    assert running.locator("#apply").is_disabled()
    running.locator("#size").fill("64x48")
    running.locator("#apply").click()
    until(lambda: session.state == "running" and session.settings()["size"] == [64, 48], "the new size")
    until(lambda: running.locator("#facts").inner_text().startswith("64 × 48"), "it is shown")


def test_the_source_is_mirrored_at_once_and_turned_by_a_restart(running, session):
    running.locator("#mirror").check()
    until(lambda: session.settings()["mirror"], "the mirror")
    assert "change places" in running.locator("#mirror").get_attribute("title")
    running.locator("#rotate").select_option("90")
    running.locator("#fit").select_option("letterbox")
    running.locator("#output").fill("160x90")
    running.locator("#apply").click()
    until(lambda: session.state == "running" and session.settings()["output"] == [160, 90], "the new output")
    assert (session.settings()["rotate"], session.settings()["fit"]) == (90, "letterbox")
    until(lambda: session.pictures.shown and session.pictures.shown.styled.shape == (90, 160, 3), "it is shown")
    until(lambda: running.locator("#screen").evaluate("e => e.style.aspectRatio") == "160 / 90", "in its shape")
    assert session.pictures.composed(Look("source"))[1].shape == (90, 160, 3)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [("holdiay.mp4", "holdiay.mp4"), ("rtsp://127.0.0.1:{port}/x", "rtsp://127.0.0.1"), ("camrea:0", "camera:")],
)
def test_a_mistyped_source_leaves_the_show_running(running, session, wrong, told):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]  # nobody listens there once this is closed
    source, run = session.settings()["source"], session._run
    wrong = wrong.format(port=port)
    running.locator("#source").fill(wrong)
    running.get_by_role("button", name="Apply and restart").click()
    running.get_by_role("alert").get_by_text(told).wait_for()
    seen = session.pictures.shown.number
    until(lambda: session.pictures.shown.number > seen + 3, "pictures of the show")
    assert (session.state, session.settings()["source"]) == ("running", source)
    assert session._run is run, "it was not started anew"
    assert running.locator("#source").input_value() == wrong, "what was typed is there to be mended"
    running.locator("#source").fill("pattern:96x64@25,live=1,frames=100000,motion=pan")
    running.get_by_role("button", name="Apply and restart").click()
    until(lambda: session.settings()["source"].endswith("pan") and session.state == "running", "the right one")


def test_a_sink_may_have_spaces_in_its_name(running, session, tmp_path):
    film = str(tmp_path / "my  summer film.mp4")
    running.locator("#sinks").fill(f"{film}\nnull:")
    running.locator("#apply").click()
    until(lambda: session.settings()["sinks"] == [film, "null:"] and session.state == "running", "both sinks")
    until(lambda: running.locator("#sinks").input_value() == f"{film}\nnull:", "they are shown, one a line")
    assert running.locator("#apply").is_disabled()


def test_a_bundle_that_is_gone_leaves_the_others_to_choose(session, page, visit, exact_bundle, tmp_path):
    gone = Path(shutil.copytree(exact_bundle, tmp_path / "mine"))
    session.change({"bundle": str(gone)})
    shutil.rmtree(gone)
    with page(session) as address:
        shown = visit(address)
        shown.get_by_role("alert").get_by_text("is not a bundle").wait_for()
        names = shown.locator("#bundle option").all_inner_texts()
        assert {str(gone), "embedded"} <= set(names) and "embedded-flow" not in names
        shown.locator("#bundle").select_option("embedded")
        shown.locator("#apply").click()
        until(lambda: session.settings()["bundle"] == "embedded", "another one")
        shown.get_by_role("radio", name="ukiyoe").wait_for()


def test_a_complaint_stays_when_the_page_asks_for_something_else(session, library, visit, exact_bundle, tmp_path):
    from warpfuse.web.presets import Presets
    from warpfuse.web.security import AccessRules
    from warpfuse.web.server import WebServer, application

    complained = threading.Event()

    class Late(Presets):
        def names(self):
            complained.wait(PATIENCE_S)
            return super().names()

    presets = Late(tmp_path / "presets")
    presets.save("first", "prompt: negative\n")
    gone = Path(shutil.copytree(exact_bundle, tmp_path / "mine"))
    session.change({"bundle": str(gone)})
    shutil.rmtree(gone)
    access = AccessRules()
    complained.set()
    served = application(session, presets, access, library)
    complained.clear()
    with WebServer(served, access, 0) as server:
        shown = visit(server.url)
        complaint = shown.get_by_role("alert").get_by_text("is not a bundle")
        complaint.wait_for()
        complained.set()
        shown.locator("#presets li").wait_for()
        assert complaint.is_visible()


def test_a_notice_goes_when_what_it_is_about_has_gone(running, session):
    notice = running.locator("#notice")
    running.locator("#prompt").fill("sane")
    running.locator("#prompt").press("Enter")
    notice.wait_for()
    running.locator("#prompt").press("Backspace")
    notice.wait_for(state="hidden")
    running.locator("#size").fill("64x48")
    running.locator("#guidance").evaluate("e => e.closest('details').open = true")
    running.locator("#skip").fill("2")
    running.get_by_role("button", name="Restart with it").wait_for()
    session.stop()
    notice.wait_for(state="hidden")


def stands(shown):
    """What is said over the picture, and whether the picture is as it was made."""
    told = shown.locator("#stands")
    plain = shown.locator("#video").evaluate("e => getComputedStyle(e).filter") == "none"
    return (told.inner_text() if told.is_visible() else "", plain, shown.title())


def test_what_is_not_live_does_not_look_it(session, page, presets, library, visit, monkeypatch):
    from warpfuse.web.pictures import Pictures
    from warpfuse.web.security import AccessRules
    from warpfuse.web.server import WebServer, application

    session.start({"fusion": 0})
    access = AccessRules()
    with WebServer(application(session, presets, access, library), access, 0) as server:
        shown = visit(server.url)
        shown.locator("#blank").wait_for(state="hidden")
        until(lambda: stands(shown) == ("", True, "warpfuse"), "the control: a picture that is live")
        session.pause()
        until(lambda: stands(shown) == ("Paused", False, "Paused - warpfuse"), "the pause")
        session.resume()
        until(lambda: stands(shown)[:2] == ("", True), "it goes on")
        session.stop()
        until(lambda: stands(shown)[:2] == ("Stopped: the last picture", False), "the stop")
        session.start({"source": "pattern:96x64@25,frames=3"})
        until(lambda: stands(shown)[:2] == ("Ended: the last picture", False), "the end")

        def broken(self, frame):
            raise ValueError("no memory for pictures")

        with monkeypatch.context() as patch:
            patch.setattr(Pictures, "show", broken)
            session.start({"source": "pattern:96x64@25,live=1,frames=100000"})
            until(lambda: stands(shown)[:2] == ("Failed: the last picture", False), "the failure")
        session.start()
        until(lambda: stands(shown)[:2] == ("", True), "it is live again")
    until(lambda: stands(shown) == ("No connection to the server", False, "No connection - warpfuse"), "the end of it")


def test_every_key_that_may_change_while_it_runs_has_a_control_that_tells_what_it_does(running, session):
    from warpfuse.graph.plan.key_table import live_keys

    running.locator("#key-stages-fuse-exit").wait_for(state="attached")
    controls = running.locator("[data-key]")
    told = dict(controls.evaluate_all("all => all.map((e) => [e.dataset.key, e.title])"))
    assert told == {key.key: key.about for key in live_keys() if key.key != "prompt"}
    running.locator(".more").evaluate("e => e.querySelectorAll('details').forEach((d) => { d.open = e.open = true; })")
    running.locator("#key-stages-fuse-exit").fill("0.5")
    until(lambda: session.settings()["stages"]["fuse"]["exit"] == 0.5, "a slider")
    running.locator("#key-stages-fuse-noise").select_option("slot")
    until(lambda: session.settings()["stages"]["fuse"]["noise"] == "slot", "a choice")
    running.locator("#key-stages-fuse-anchor-entry").uncheck()
    until(lambda: session.settings()["stages"]["fuse"]["anchor"]["entry"] is False, "a switch")
    running.locator("#key-stages-fuse-window").fill("100, 900")
    running.locator("#key-stages-fuse-window").press("Enter")
    until(lambda: session.settings()["stages"]["fuse"]["window"] == [100, 900], "a pair")
    running.locator("#key-stages-predict-attention-refresh").fill("9")
    running.locator("#key-stages-predict-attention-refresh").press("Enter")
    running.get_by_role("alert").get_by_text("exported without attention").wait_for()
    session.change({"stages": {"fuse": {"exit": 0.25}}})
    until(lambda: running.locator("#key-stages-fuse-exit").input_value() == "0.25", "what another changed")


def test_hotkeys_press_what_they_stand_for_but_not_in_a_field(running, session, presets):
    presets.save("first", "prompt: negative\n")
    presets.save("second", "prompt: noisy\n")
    running.reload()
    running.locator("#presets li").nth(1).wait_for()
    running.locator("#blank").wait_for(state="hidden")
    keyboard = running.keyboard
    keyboard.press("Space")
    running.locator("#state", has_text="Paused").wait_for()
    keyboard.press("Space")
    running.locator("#state", has_text="Running").wait_for()
    assert session.state == "running"
    keyboard.press("2")
    until(lambda: session.settings()["prompt"] == "noisy", "the second preset")
    keyboard.press("1")
    until(lambda: session.settings()["prompt"] == "negative", "the first")
    keyboard.press("r")
    running.locator("#record[aria-pressed=true]").wait_for()
    assert session.stats()["recording"] is not None
    keyboard.press("r")
    until(lambda: session.stats()["recording"] is None, "its end")
    for _ in range(3):
        keyboard.press("t")
    until(lambda: running.locator("#bpm").input_value() == f"{session.settings()['bpm']:g}" != "120", "a tempo")
    running.locator("#cues").fill("second\nfirst")
    running.locator("#cues").press("Tab")
    until(lambda: session.settings()["schedule"]["cues"] == ["second", "first"], "presets in turn")
    until(lambda: running.locator("#prompt").input_value() == "noisy", "controls that show the cue that is seen")
    assert session.settings()["prompt"] == "negative", "beneath it"
    keyboard.press("Shift+Tab")
    running.locator("#every").fill("four")
    running.locator("#every").press("Enter")
    running.get_by_role("alert").get_by_text("as in '4 beats'").wait_for()
    running.locator("#every").press("Tab")
    running.locator("#tap").focus()
    keyboard.press("f")
    until(lambda: running.evaluate("document.fullscreenElement?.id") == "screen", "full screen")
    keyboard.press("f")
    until(lambda: running.evaluate("document.fullscreenElement") is None, "its end")
    running.locator("#prompt").fill("")
    keyboard.type("f r 2")
    assert running.locator("#prompt").input_value() == "f r 2"
    assert (session.state, session.settings()["prompt"], session.stats()["recording"]) == ("running", "negative", None)


@pytest.mark.parametrize(("width", "height"), [(390, 844), (768, 1024), (1440, 900)])
def test_the_picture_stays_in_sight_while_sliders_move(session, page, visit, width, height):
    session.start({"fusion": 0})
    with page(session) as address:
        shown = visit(address, viewport={"width": width, "height": height})
        shown.locator("#blank").wait_for(state="hidden")
        shown.locator(".more").evaluate(
            "e => e.querySelectorAll('details').forEach((d) => { d.open = e.open = true; })"
        )
        shown.locator("#more [data-key]").last.wait_for()
        for control in (shown.locator("#strength"), shown.locator("#more [data-key]").last):
            control.evaluate("e => e.scrollIntoView({ block: 'end' })")
            picture, slider = shown.locator("#screen").bounding_box(), control.bounding_box()
            assert picture["y"] >= 0 and picture["y"] + picture["height"] <= height, "all of it"
            aside = slider["x"] >= picture["x"] + picture["width"]
            assert aside or slider["y"] >= picture["y"] + picture["height"], "and not over the slider"


def test_a_knob_is_learned_by_touching_a_slider(session, presets, page, visit, complaints):
    mido = pytest.importorskip("mido", reason="pip install 'warpfuse[midi]'")
    from support import midi_ports

    from warpfuse.midi import MidiInput

    presets.save("dark", "prompt: negative\n")
    mido.set_backend("support.midi_ports")
    try:
        with MidiInput(session, "nano", session.tell) as midi, page(session, midi=midi) as address:
            shown = visit(address)
            learn, told = shown.locator("#midi-learn"), shown.locator("#midi-told")
            for control, send, does in (
                ("#strength", {"kind": "control_change", "control": 7, "value": 0}, "cc 7: strength"),
                ("[data-preset=dark]", {"kind": "note_on", "note": 36, "velocity": 90}, "note 36: look dark"),
            ):
                learn.click()
                assert learn.get_attribute("aria-pressed") == "true"
                shown.locator(control).click()
                told.get_by_text("Move a knob").wait_for()
                assert session.settings()["prompt"] == "same", "the touch itself does nothing"
                midi_ports.send(**send)
                shown.locator("#midi-map").get_by_text(does).wait_for()
                shown.locator("#midi-learn[aria-pressed=false]").wait_for()
            midi_ports.send("control_change", control=7, value=127)
            midi_ports.send("note_on", note=36, velocity=90)
            until(lambda: session.settings()["prompt"] == "negative", "the look")
            until(lambda: shown.locator("#strength").input_value() == "1", "the slider follows the knob")
            shown.locator("#midi-map").get_by_role("button", name="Forget cc 7").click()
            until(lambda: list(session.settings()["midi"]) == ["note 36"], "the knob is forgotten")
            assert complaints == []
    finally:
        mido.set_backend()


def test_what_another_page_changes_is_followed(running, session):
    session.change({"strength": 0.25, "prompt": "noisy"})
    until(lambda: running.locator("#strength").input_value() == "0.25", "the slider")
    assert running.get_by_role("radio", name="noisy").get_attribute("aria-checked") == "true"


def test_presets_are_saved_and_loaded(running, session, presets):
    running.locator("#preset-name").fill("Sunday paper")
    running.locator("#preset-name").press("Enter")
    until(lambda: presets.names() == ["Sunday paper"], "the file")
    session.change({"prompt": "negative"})
    running.get_by_role("button", name="Load preset Sunday paper").click()
    until(lambda: session.settings()["prompt"] == "same", "what was saved")
    with running.expect_download() as saved:
        running.get_by_role("link", name="Download preset Sunday paper").click()
    assert "prompt: same" in Path(saved.value.path()).read_text()


def test_a_start_that_waits_for_its_source_can_be_stopped(session, page, visit, complaints):
    with page(session) as address, socket.create_server(("127.0.0.1", 0)) as server:
        shown = visit(address)
        server.settimeout(PATIENCE_S)
        shown.locator("#source").fill(f"rtsp://127.0.0.1:{server.getsockname()[1]}/x")  # it never answers
        shown.get_by_role("button", name="Start").click()
        connection, _ = server.accept()
        with connection:
            playwright.expect(shown.locator("#state")).to_have_text("Starting", timeout=PATIENCE_S * 1000)
            shown.get_by_role("button", name="Stop").click()
            playwright.expect(shown.locator("#state")).to_have_text("Stopped", timeout=PATIENCE_S * 1000)
        assert not shown.locator("#notice").is_visible() and not complaints
        playwright.expect(shown.get_by_role("button", name="Start")).to_be_enabled()


def test_a_small_picture_stands_over_the_name_of_each_style(session, page, visit, complaints):
    """Of a bundle that has them; of another (the control) the page shows words alone."""
    with page(session) as address:
        assert visit(address).locator("#chips [role=radio]").first.locator("img").count() == 0
        session.change({"bundle": "embedded", "prompt": ""})
        shown = visit(address)
        styles = session.held.bundle()["styles"]
        for name in styles:
            picture = shown.locator(f"#chips [data-name={name}] img")
            until(lambda picture=picture: picture.evaluate("img => img.complete && img.naturalWidth") == 288, name)
        assert shown.locator("#chips img").count() == len(styles) and not complaints


def test_strength_0_shows_the_source(session, page, visit):
    session.restart({"bundle": "embedded", "prompt": "blueprint", "size": "96x64", "fusion": 0, "strength": 1})

    def distance():
        shown = session.pictures.shown
        return apart(shown.styled.astype(int), shown.source) if shown and shown.source is not None else 0

    with page(session) as address:
        shown = visit(address)
        styled = until(distance, "a picture")
        assert styled > 25, "at strength 1 it is another picture"
        shown.locator("#strength").fill("0")
        until(lambda: distance() < 12, "the source")


def test_the_bare_picture_fills_its_frame_and_comes_back(session, page, presets, library, visit):
    from warpfuse.web.security import AccessRules
    from warpfuse.web.server import WebServer, application

    session.start()
    access = AccessRules()
    with WebServer(application(session, presets, access, library), access, 0) as server:
        shown = visit(f"{server.url}view?by=mjpeg", viewport={"width": 640, "height": 360})
        image = shown.locator("#image")
        image.wait_for()
        until(lambda: image.evaluate("e => e.naturalWidth") == 96, "a picture")
        assert image.bounding_box() == {"x": 0, "y": 0, "width": 640, "height": 360}
        assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgba(0, 0, 0, 0)"
        port = server.port
    image.wait_for(state="hidden")
    with WebServer(application(session, presets, access, library), access, port):
        image.wait_for()
        until(lambda: image.evaluate("e => e.naturalWidth") == 96, "the picture again")


@pytest.mark.parametrize("asked", ["view=styeld", "overlay=flows", "fit=fill", "size=5", "view=side&view=x"])
def test_a_mistyped_address_of_the_bare_picture_shows_nothing_and_is_told_on_the_page(
    running, visit, page, session, asked
):
    def alpha(shown):
        data = shown.screenshot(omit_background=True)
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))[..., 3]

    root = running.url
    right = visit(f"{root}view?by=mjpeg", viewport={"width": 96, "height": 64})
    until(lambda: alpha(right).min() == 255, "the control: a picture")
    wrong = visit(f"{root}view?by=mjpeg&{asked}", viewport={"width": 96, "height": 64})
    wrong.wait_for_load_state("networkidle")
    assert alpha(wrong).max() == 0 and wrong.locator("body").inner_text() == ""
    running.locator("#log", has_text=asked.split("&")[-1]).wait_for()


def test_the_interface_is_listed(session, page, visit, complaints):
    with page(session) as address:
        shown = visit(f"{address}docs")
        shown.get_by_text("PATCH /api/settings").wait_for()
        assert complaints == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_serious_fault_of_accessibility_at_any_width(session, page, presets, visit, theme):
    axe = find_spec("axe_playwright_python")
    if axe is None:
        pytest.skip("pip install axe-playwright-python: it brings axe-core")
    script = (Path(axe.submodule_search_locations[0]) / "axe.min.js").read_text()
    presets.save("night", "prompt: noisy")
    session.start()
    with page(session) as address:
        # The policy of the page keeps scripts out that are not its own; this one is let in for the test.
        shown = visit(address, color_scheme=theme, bypass_csp=True)
        shown.locator("#blank").wait_for(state="hidden")
        shown.locator("#guidance").evaluate("e => e.closest('details').open = true")
        shown.evaluate(script)
        for width in WIDTHS:
            shown.set_viewport_size({"width": width, "height": 900})
            found = shown.evaluate("() => axe.run()")["violations"]
            serious = [
                (v["id"], [n["target"] for n in v["nodes"]]) for v in found if v["impact"] in ("serious", "critical")
            ]
            assert serious == [], (width, theme)
            wide = shown.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"at {width} px the page is {wide} px too wide"


def test_a_source_is_picked_uploaded_and_browsed_to(running, session, library):
    from warpfuse.shipped_clip import CLIP

    running.locator("#pick optgroup[label='With warpfuse'] option").first.wait_for(state="attached")
    running.locator("#pick").select_option(label="the clip that ships")
    until(lambda: session.state == "running" and session.source == str(CLIP), "the clip")
    running.locator("#upload").set_input_files(CLIP)
    until(lambda: session.source == str(library.uploads / CLIP.name), "the uploaded one")
    until(lambda: session.state == "running", "the run of it")
    running.locator("#browse").click()
    entries = running.locator("#entries button")
    entries.first.wait_for()
    assert running.locator("#here").inner_text() == str(Path.home().resolve())


def test_what_ends_begins_again_if_asked(running, session):
    running.locator("#loop").select_option("true")
    running.locator("#apply").click()
    until(lambda: session.settings()["loop"] is True, "the loop")


def test_a_tap_on_a_label_says_what_its_control_does(session, page, visit):
    session.start({"fusion": 0})
    with page(session) as address:
        shown = visit(address, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
        label = shown.locator("label[for=fusion]")
        until(lambda: label.locator("..").get_attribute("title"), "what it does")
        tip = shown.locator("#tip")
        assert tip.is_hidden(), "the control: nothing is tapped"
        label.tap()
        assert tip.inner_text() == label.locator("..").get_attribute("title")
        box, screen = tip.bounding_box(), shown.viewport_size
        assert box["x"] >= 0 and box["x"] + box["width"] <= screen["width"]
        assert box["y"] >= 0 and box["y"] + box["height"] <= screen["height"]
        shown.locator("h1").tap()
        assert tip.is_hidden()
