"""Law: whatever a camera does to multipart, the pictures it sends are seen, as a browser sees them, each at once."""

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import servers

from warpfuse.stages.errors import SourceLost
from warpfuse.stages.sources import open_source
from warpfuse.stages.sources.connection import Patience
from warpfuse.stages.sources.multipart import Parts, jpeg_end

from .conftest import counted, number_in

HASTY = Patience(first=5.0, stall=0.5, silence=2.0, least=0.02, most=0.05, total=60.0)


def encoded(index, kind=".jpg"):
    return cv2.imencode(kind, counted(index))[1].tobytes()


PICTURES = [encoded(index) for index in range(5)]


def preview(jpeg):
    """The JPEG with another one inside, as EXIF holds it."""
    inner = b"Exif\0\0" + encoded(200)
    return jpeg[:2] + b"\xff\xe1" + (len(inner) + 2).to_bytes(2) + inner + jpeg[2:]


def usual(jpeg):
    return b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(jpeg), jpeg)


# By what is odd about it: the boundary the head tells, and how a part is sent.
ODD = {
    "as the standard has it": ("next", usual),
    "dashes in the head": ("--next", usual),
    "dashes in the head and two more": ("--next", lambda jpeg: usual(jpeg).replace(b"--next", b"----next")),
    "quoted": ('"next"', usual),
    "no dashes in the body": ("next", lambda jpeg: usual(jpeg).replace(b"--next", b"next")),
    "boundary behind the picture": (
        "next",
        lambda jpeg: b"Content-Type: image/jpeg\r\n\r\n" + jpeg + b"\r\n--next\r\n",
    ),
    "boundary right behind the picture": (
        "next",
        lambda jpeg: b"Content-Type: image/jpeg\r\n\r\n" + jpeg + b"--next\r\n",
    ),
    "no Content-Type": ("next", lambda jpeg: b"--next\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(jpeg), jpeg)),
    "no head": ("next", lambda jpeg: b"--next\r\n\r\n" + jpeg + b"\r\n"),
    "no head and no blank line": ("next", lambda jpeg: b"--next\r\n" + jpeg + b"\r\n"),
    "length too short": ("next", lambda jpeg: b"--next\r\nContent-Length: 9\r\n\r\n" + jpeg + b"\r\n"),
    "length too long": ("next", lambda jpeg: b"--next\r\nContent-Length: 99999\r\n\r\n" + jpeg + b"\r\n"),
    "line feeds alone": ("next", lambda jpeg: b"--next\nContent-Type: image/jpeg\n\n" + jpeg + b"\n"),
    "no line end behind the picture": ("next", lambda jpeg: usual(jpeg)[:-2]),
    "padding": ("next", lambda jpeg: usual(jpeg)[:-2] + bytes(64) + b"\r\n"),
    "another boundary than told": ("other", usual),
    "no boundary told": ("", usual),
    "a closing boundary each time": ("next", lambda jpeg: usual(jpeg) + b"--next--\r\n"),
    "a status between": ("next", lambda jpeg: usual(jpeg) + b"--next\r\nContent-Type: text/plain\r\n\r\nfine\r\n"),
    "a preview in the picture": ("next", lambda jpeg: usual(preview(jpeg))),
    "nothing but pictures": ("", lambda jpeg: jpeg),
}


def shown(bodies):
    """The numbers of those that are pictures, as OpenCV decodes them."""
    images = [cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR) for body in bodies if body]
    return [number_in(image[..., ::-1]) for image in images if image is not None]


@pytest.mark.parametrize("odd", ODD)
@settings(max_examples=25)
@given(data=st.data())
def test_every_picture_is_found_however_the_stream_is_cut(odd, data):
    boundary, part = ODD[odd]
    stream = b"".join(map(part, PICTURES))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    parts = Parts(boundary.strip('"'))
    bodies = [body for a, b in itertools.pairwise([0, *cuts, len(stream)]) for body in parts.feed(stream[a:b])]
    assert shown([*bodies, *parts.rest()]) == list(range(len(PICTURES)))


@pytest.mark.parametrize("odd", ODD)
def test_a_picture_that_is_whole_is_not_kept_until_the_next_one_comes(odd):
    boundary, part = ODD[odd]
    parts = Parts(boundary.strip('"'))
    for index, jpeg in enumerate(PICTURES):
        sent = part(jpeg)
        up_to = sent.index(jpeg[-200:]) + 200
        assert shown(parts.feed(sent[:up_to])) == [index]
        assert shown(parts.feed(sent[up_to:])) == []


def test_other_pictures_than_jpeg_end_at_the_boundary():
    parts = Parts("next")
    pngs = [encoded(index, ".png") for index in range(3)]
    bodies = parts.feed(b"".join(b"--next\r\nContent-Type: image/png\r\n\r\n" + png + b"\r\n" for png in pngs))
    assert [*bodies, *parts.rest()] == [*pngs[:2], pngs[2] + b"\r\n"]


def test_a_picture_that_was_cut_off_costs_no_other():
    parts = Parts("next")
    stream = usual(PICTURES[0]) + usual(PICTURES[1][:300]) + usual(PICTURES[2]) + usual(PICTURES[3])
    assert {0, 2, 3} <= set(shown(parts.feed(stream)))


def test_the_end_of_a_jpeg_is_that_of_the_whole_not_of_its_preview():
    jpeg = preview(PICTURES[0])
    assert jpeg_end(jpeg + b"\r\n--next") == len(jpeg) > jpeg.index(b"\xff\xd9") + 2
    assert all(jpeg_end(jpeg[:length]) is None for length in range(len(jpeg)))
    assert jpeg_end(b"GIF89a") is None


@given(st.binary(max_size=400), st.sampled_from(["next", "", "--"]))
def test_no_bytes_make_it_fail(data, boundary):
    parts = Parts(boundary)
    for piece in (data, data[::-1], usual(data)):
        parts.feed(piece)
    parts.rest()


def test_what_never_ends_is_given_up():
    parts = Parts("next")
    with pytest.raises(ValueError, match="without the end of a picture"):
        for _ in range(80):
            parts.feed(bytes(1 << 20))


@pytest.fixture
def web(tmp_path):
    web = servers.Web(tmp_path)
    yield web
    web.close()


@pytest.mark.parametrize("odd", ["as the standard has it", "boundary behind the picture", "no Content-Type", "quoted"])
def test_a_camera_is_shown_over_http(web, odd):
    boundary, part = ODD[odd]
    heads = {"Content-Type": f"multipart/x-mixed-replace;boundary={boundary}"}
    web.answers["/cgi/video"] = heads, lambda: (part(PICTURES[3]) for _ in itertools.count())
    source = open_source(f"{web.url}/cgi/video", patience=HASTY)
    frames = [source.read() for _ in range(5)]
    source.close()
    assert source.info.live and [number_in(frame.rgb) for frame in frames] == [3] * 5
    assert len(web.heard) == 1, "it was asked once: some cameras take one connection"


def test_a_camera_that_ends_its_answer_is_asked_again(web):
    heads = {"Content-Type": "multipart/x-mixed-replace; boundary=next"}
    answers = iter(range(1, 255))
    web.answers["/v"] = heads, lambda: [usual(encoded(next(answers)))] * 2
    source = open_source(f"{web.url}/v", patience=HASTY)
    seen = set()
    while len(seen) < 3:
        seen.add(number_in(source.read().rgb))
    source.close()
    assert source.report()["reconnects"] >= 2


def test_a_camera_that_sends_no_picture_is_given_up(web):
    web.answers["/v"] = {"Content-Type": "multipart/x-mixed-replace; boundary=next"}, lambda: [usual(b"no picture")] * 9
    with pytest.raises(SourceLost, match="the other side ended"):
        open_source(f"{web.url}/v", patience=Patience(first=0.5, least=0.02, most=0.05))
