"""The page of a cluster in a real browser: a picture of each stream, and a live one for who clicks."""

import contextlib
import shutil
import threading

import pytest
from support.waiting import PATIENCE_S

from warpfuse.cluster.bundle_store import BundleStore
from warpfuse.cluster.controller import HostState, Status, StreamState
from warpfuse.cluster.host_server import HostServer
from warpfuse.graph.plan.streams import read_streams
from warpfuse.graph.run import open_run
from warpfuse.web.cluster_page import application
from warpfuse.web.security import AccessRules
from warpfuse.web.server import WebServer

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright: it drives the browser")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is absent: apt-get install chromium"),
    pytest.mark.timeout(180),
]
STREAM = {"source": "pattern:96x64@5,live=1,frames=100000", "sinks": ["null:"], "size": "96x64", "prompt": "same"}
TOKEN = "for-reading"


@pytest.fixture
def address(exact_bundle, tmp_path):
    """The page over a host with two streams; a third waits."""
    stop = threading.Event()
    with contextlib.ExitStack() as undo:
        keys = {"host": True, "bundle": exact_bundle, "streams": {"yard": STREAM, "door": STREAM}}
        run = open_run(read_streams(keys), undo, stop=stop)
        run.start()
        waiting = threading.Thread(target=run.wait)
        waiting.start()
        try:
            host = undo.enter_context(HostServer("127.0.0.1", run, TOKEN))
            hosts = [HostState("a:0", "L4", "runs", 0.2, ["yard", "door"], "a", host.where)]
            streams = [StreamState(name, "a:0", "runs", 2, 2, 0, 0, 0, 1) for name in ("yard", "door")]
            streams.append(StreamState("gate", "", "waits", 0, 0, 0, 0, 0, 0, "no host has the label site=north"))
            access = AccessRules(token=TOKEN)
            page = application("farm", lambda: Status(hosts, streams, []), BundleStore(tmp_path), access)
            yield undo.enter_context(WebServer(page, access, 0)).url
        finally:
            undo.close()
            stop.set()
            waiting.join()


def test_each_stream_that_runs_has_a_picture_and_a_click_shows_it_live(address):
    complaints = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.set_default_timeout(PATIENCE_S * 1000)
        page.on("console", lambda told: complaints.append(told.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        page.locator(".tile img[src]").nth(1).wait_for()
        assert page.locator(".tile").all_inner_texts()[2].split("\n")[-1] == "no host has the label site=north"
        assert page.locator(".tile img[src]").count() == 2, "what waits has none"
        widths = page.locator(".tile img[src]").evaluate_all("(images) => images.map((image) => image.naturalWidth)")
        assert widths == [96, 96]
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        page.get_by_role("button", name="yard: show live").click()
        page.locator("#live-frame img").wait_for()
        first = page.locator("#live-frame img").get_attribute("src")
        page.locator(f'#live-frame img:not([src="{first}"])').wait_for()
        page.keyboard.press("Escape")
        page.locator("#live").wait_for(state="hidden")
        browser.close()
    assert complaints == []
