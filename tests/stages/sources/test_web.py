"""What a web server answers decides how it is read: a still is fetched again, a page is named for what it is."""

import itertools

import cv2
import pytest
from support import servers

from warpfuse.stages.errors import SourceError, SourceLost
from warpfuse.stages.sources import open_source
from warpfuse.stages.sources.connection import Patience

from .conftest import counted, number_in

HASTY = Patience(first=5.0, stall=5.0, silence=2.0, least=0.02, most=0.05, total=60.0)
JPEG = {"Content-Type": "image/jpeg"}
PAGE = b"<!DOCTYPE html><html><body><video></video></body></html>"


def encoded(index, kind=".jpg"):
    return cv2.imencode(kind, counted(index))[1].tobytes()


@pytest.fixture
def web(tmp_path):
    web = servers.Web(tmp_path)
    yield web
    web.close()


@pytest.mark.parametrize(
    ("heads", "kind"),
    [
        (JPEG, ".jpg"),
        ({"Content-Type": "image/png"}, ".png"),
        ({"Content-Type": "image/bmp"}, ".bmp"),
        ({"Content-Type": "application/octet-stream", "Content-Length": str(len(encoded(1)))}, ".jpg"),
        ({"Content-Length": str(len(encoded(1)))}, ".jpg"),
    ],
)
def test_a_still_picture_is_fetched_again_and_again(web, heads, kind):
    pictures = itertools.cycle([encoded(1, kind), encoded(1, kind), encoded(1, kind)])
    web.answers["/snapshot.cgi?channel=1"] = heads, lambda: [next(pictures)]
    source = open_source(f"{web.url}/snapshot.cgi?channel=1#fps=50", patience=HASTY)
    frames = [source.read() for _ in range(4)]
    news, report = source.news(), source.report()
    source.close()
    assert source.info.live and source.info.fps == 50 and {number_in(frame.rgb) for frame in frames} == {1}
    assert not any(frame.stamp.stale for frame in frames) and report["reconnects"] == 0
    assert len(web.heard) >= 4 and [line for line in news if "fetched 50 times a second" in line]


def test_each_fetch_shows_the_picture_as_it_is_then(web):
    numbers = itertools.count(1)
    web.answers["/now.jpg"] = JPEG, lambda: [encoded(next(numbers) % 256)]
    source = open_source(f"{web.url}/now.jpg#fps=50", patience=HASTY)
    seen = [number_in(source.read().rgb) for _ in range(5)]
    source.close()
    assert seen == sorted(set(seen)), "each is newer than the one before"


def test_without_a_wish_it_is_fetched_five_times_a_second(web):
    web.answers["/now.jpg"] = JPEG, lambda: [encoded(1)]
    source = open_source(f"{web.url}/now.jpg", patience=HASTY)
    source.close()
    assert source.info.fps == 5


@pytest.mark.parametrize("rate", ["0", "61", "fast"])
def test_a_rate_out_of_range_is_bad_input(rate):
    with pytest.raises(SourceError, match=rf"the rate is '{rate}'; it must be above 0 and at most 60"):
        open_source(f"http://127.0.0.1:9/now.jpg#fps={rate}")


def test_a_picture_that_is_gone_for_a_while_is_waited_for(web):
    answers = itertools.count()

    def pictures():
        if 2 <= next(answers) < 5:
            return [b"not a picture"]
        return [encoded(7)]

    web.answers["/now.jpg"] = JPEG, pictures
    source = open_source(f"{web.url}/now.jpg#fps=50", patience=HASTY)
    frames = [source.read() for _ in range(8)]
    source.close()
    assert {number_in(frame.rgb) for frame in frames} == {7} and len(web.heard) >= 9


@pytest.mark.parametrize("kind", ["Basic", "MD5", "SHA-256"])
@pytest.mark.parametrize("path", ["/now.jpg", "/video"])
def test_the_account_of_the_address_is_sent_as_the_server_wants_it(web, kind, path):
    password = "a#b/c?d@e:f%g"
    web.account = ("anna", password, kind)
    part = b"--x\r\n\r\n" + encoded(5) + b"\r\n"
    web.answers["/now.jpg"] = JPEG, lambda: [encoded(5)]
    web.answers["/video"] = {"Content-Type": "multipart/x-mixed-replace;boundary=x"}, lambda: itertools.repeat(part)
    source = open_source(web.url.replace("//", f"//anna:{password}@") + f"{path}#fps=50", patience=HASTY)
    frames = [source.read() for _ in range(3)]
    shown = " ".join([*source.news(), str(source.report())])
    source.close()
    assert {number_in(frame.rgb) for frame in frames} == {5} and "anna" not in shown and "a#b" not in shown
    assert not web.heard[0][1] and all(sent for _, sent in web.heard[1:]), "asked once before each knows how"


@pytest.mark.parametrize("kind", ["Basic", "MD5"])
def test_a_wrong_password_is_sent_once(web, kind):
    web.account = ("anna", "right", kind)
    web.answers["/now.jpg"] = JPEG, lambda: [encoded(5)]
    with pytest.raises(SourceLost, match="password was refused") as refused:
        open_source(web.url.replace("//", "//anna:wr0ng@") + "/now.jpg", patience=HASTY)
    assert len([sent for _, sent in web.heard if sent]) == 1 and "wr0ng" not in str(refused.value)


def test_a_kind_of_password_that_is_not_known_is_said(web):
    web.account = ("anna", "right", "SHA-512-256")
    web.answers["/now.jpg"] = JPEG, lambda: [encoded(5)]
    with pytest.raises(SourceLost, match="a kind of password that is not known here"):
        open_source(web.url.replace("//", "//anna:right@") + "/now.jpg", patience=HASTY)


def test_a_password_is_not_sent_on_to_another_server(web, tmp_path):
    other = servers.Web(tmp_path)
    try:
        web.account = ("anna", "right", "Basic")
        other.answers["/now.jpg"] = JPEG, lambda: [encoded(5)]
        web.answers["/now.jpg"] = {"status": "302", "Location": f"{other.url}/now.jpg"}, list
        source = open_source(web.url.replace("//", "//anna:right@") + "/now.jpg", patience=HASTY)
        source.close()
        assert web.heard[1][1].startswith("Basic ") and {sent for _, sent in other.heard} == {""}
    finally:
        other.close()


@pytest.mark.parametrize(
    ("path", "heads", "body"),
    [
        ("/watch?v=1", {"Content-Type": "text/html; charset=utf-8"}, PAGE),
        ("/live", {"Content-Type": "application/xhtml+xml"}, PAGE),
        ("/live", {}, b"\n  <html lang=en>"),
        ("/view/clip.mp4", {"Content-Type": "text/html"}, PAGE),  # a page about a clip
    ],
)
def test_a_page_is_named_for_what_it_is_with_the_tools_that_help(web, path, heads, body):
    web.answers[path] = heads, lambda: [body]
    with pytest.raises(SourceLost, match=r"it is a web page, not a stream. .*yt-dlp -g .*streamlink --stream-url"):
        open_source(f"{web.url}{path}", patience=HASTY)


@pytest.mark.parametrize(
    "url",
    [
        "https://www.youtube.com/watch?v=dQw4w9WgXcQ", "https://youtu.be/dQw4w9WgXcQ", "https://www.twitch.tv/someone",
        "https://m.youtube.com/@someone/live", "https://vimeo.com/76979871", "HTTPS://WWW.TIKTOK.COM/@someone/live",
    ],
)  # fmt: skip
def test_pages_that_everybody_knows_are_not_even_asked_for(url):
    with pytest.raises(SourceError, match=r"it is a web page, not a stream. .*yt-dlp -g"):
        open_source(url)


def test_a_camera_that_shows_a_page_while_it_starts_is_waited_for(web):
    part = b"--x\r\n\r\n" + encoded(5) + b"\r\n"
    heads = {"Content-Type": "multipart/x-mixed-replace;boundary=x"}

    def then(body, *following):
        """This body, and behind it, from the next request on, what follows."""
        if following:
            web.answers["/video"] = following[0]
        return body

    end = heads, lambda: then([part] * 3)
    page = {"Content-Type": "text/html"}, lambda: then([PAGE], end)
    web.answers["/video"] = heads, lambda: then([part] * 3, page)
    source = open_source(f"{web.url}/video", patience=HASTY)
    while not (frame := source.read()).stamp.discontinuity:
        pass
    source.close()
    assert number_in(frame.rgb) == 5 and len(web.heard) >= 3


def test_an_address_that_speaks_no_http_is_said(web):
    with pytest.raises(SourceLost, match="connection refused"):
        open_source("http://127.0.0.1:9/video", patience=Patience(first=0.5, least=0.05, most=0.1))
