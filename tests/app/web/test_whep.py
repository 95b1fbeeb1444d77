"""The page's picture by WHEP: to our own source, and to a browser; a browser's by WHIP to us."""

import http.server
import shutil
import threading

import pytest
from starlette.testclient import TestClient
from support.waiting import until

from warpfuse.stages.errors import SourceLost
from warpfuse.stages.sources import open_source
from warpfuse.stages.sources.whip import WhipSession
from warpfuse.web.security import AccessRules
from warpfuse.web.server import application

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright: it drives the browser")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"]

WHEP = """async ([url, headers]) => {
  const peer = new RTCPeerConnection();
  const video = Object.assign(document.createElement("video"), {muted: true, autoplay: true});
  document.body.append(video);
  peer.ontrack = ({track}) => { video.srcObject = new MediaStream([track]); };
  peer.addTransceiver("video", {direction: "recvonly"});
  await peer.setLocalDescription();
  await new Promise(done => {
    peer.onicegatheringstatechange = () => peer.iceGatheringState === "complete" && done();
  });
  const answer = await fetch(url, {method: "POST", body: peer.localDescription.sdp,
    headers: {"content-type": "application/sdp", ...headers}});
  const session = new URL(answer.headers.get("location"), url).href;
  await peer.setRemoteDescription({type: "answer", sdp: await answer.text()});
  await new Promise(done => { video.onresize = done; });
  return [answer.status, video.videoWidth, video.videoHeight, (await fetch(session, {method: "DELETE"})).status];
}"""

WHIP = """async ([url, headers]) => {
  const canvas = Object.assign(document.createElement("canvas"), {width: 160, height: 120});
  const paint = canvas.getContext("2d");
  let turn = 0;
  setInterval(() => { paint.fillStyle = "rgb(30 200 " + (turn++ % 2) + ")"; paint.fillRect(0, 0, 160, 120); }, 40);
  const peer = window.peer = new RTCPeerConnection();
  peer.addTrack(canvas.captureStream(25).getVideoTracks()[0]);
  await peer.setLocalDescription();
  await new Promise(done => {
    peer.onicegatheringstatechange = () => peer.iceGatheringState === "complete" && done();
  });
  const answer = await fetch(url, {method: "POST", body: peer.localDescription.sdp,
    headers: {"content-type": "application/sdp", ...headers}});
  await peer.setRemoteDescription({type: "answer", sdp: await answer.text()});
  return [answer.status, new URL(answer.headers.get("location"), url).pathname];
}"""


@pytest.fixture
def browser():
    if CHROMIUM is None:
        pytest.skip("chromium is absent: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def elsewhere():
    """A page of another origin."""

    class Empty(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>elsewhere</title>")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_picture_of_the_page_is_a_source_by_whep_with_its_token(session, page):
    session.start({"fusion": 0})
    with page(session, AccessRules(token="letmein")) as address:
        url = address.partition("?")[0].replace("http", "whep", 1) + "whep"
        with pytest.raises(SourceLost, match="token was refused"):
            open_source(url + "#token=wrong")
        source = open_source(url + "#token=letmein", None, 3)
        frames = [source.read() for _ in range(3)]
        assert (source.info.width, source.info.height) == (96, 64) and frames[-1].rgb.std() > 5
        source.close()
        until(lambda: session.pictures.viewers == 0, "the end of the session")


def test_a_browser_takes_the_picture_by_whep(session, page, browser):
    session.start({"fusion": 0})
    with page(session) as address:
        shown = browser.new_page()
        shown.goto(address)
        assert shown.evaluate(WHEP, [f"{address}whep", {}]) == [201, 96, 64, 200]


def test_a_browser_sends_its_picture_by_whip_with_the_token(browser, elsewhere):
    session = WhipSession("127.0.0.1", 0, "letmein")
    try:
        shown = browser.new_page()
        shown.goto(elsewhere)
        status, place = shown.evaluate(WHIP, [session.address, {"authorization": "Bearer letmein"}])
        assert status == 201 and place == f"/whip/{session.session}"
        mean = next(session.pictures()).frame.to_ndarray(format="rgb24").mean((0, 1))
        assert mean.argmax() == 1 and mean[1] > 150
    finally:
        session.close()


def test_what_is_no_offer_is_told(session, presets, library):
    with TestClient(application(session, presets, AccessRules(), library), base_url="http://127.0.0.1") as client:
        sdp = {"content-type": "application/sdp"}
        assert client.post("/whep", content="{}").status_code == 415
        assert client.post("/whep", content="v=0", headers=sdp).status_code == 422
        assert client.delete("/whep/none").status_code == 404
