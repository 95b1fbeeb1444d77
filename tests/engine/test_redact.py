import io
import logging
import subprocess
import sys
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from warpfuse.engine import redact as module
from warpfuse.engine.redact import HIDDEN, WITHHELD, guard_process, redact

# A secret that no other part of a text can be mistaken for: it begins and ends with a letter that is used nowhere else.
_inside = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zl", "Zp")), max_size=12)
secrets = _inside.filter(lambda inner: "\n" not in inner and "://" not in inner).map(lambda inner: f"Ǽq{inner}Ǽz")
tokens = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-", min_size=16, max_size=48)
schemes = st.sampled_from(["rtsp", "rtsps", "rtmp", "rtmps", "srt", "http", "https", "RTSP"])
hosts = st.sampled_from(["cam.example:554", "cam", "10.0.0.7", "[::1]:8554", "[fe80::1]"])
texts = st.sampled_from(
    [
        "{}",
        "'{}'",
        "[Errno 5] I/O error: '{}'; last: {}",
        "cannot open {}: refused",
        "{}, then {}.",
        "async:{}",
        "-i /tmp/a.mp4:{}",
        "7{}",
        "/{}",
        "file:///tmp/a.mp4:{}",
        "pattern://x@{}",
    ]
)


def hides(text: str, secret: str) -> bool:
    return secret not in text and quote(secret, safe="") not in text


@given(schemes, secrets, secrets, texts, st.booleans(), hosts)
def test_a_user_and_a_password_are_gone_whatever_they_hold(scheme, user, password, text, encoded, host):
    shown = (quote(user, safe=""), quote(password, safe="")) if encoded else (user, password)
    for who in (f"{shown[0]}:{shown[1]}", shown[0], f":{shown[1]}"):
        out = redact(text.replace("{}", f"{scheme}://{who}@{host}/live"))
        assert hides(out, user) and hides(out, password) and "Ǽ" not in out
        assert f"{host}/live" in out, "the address can still be told from others"


@pytest.mark.parametrize("password", ["x a://b", "x#a://b", "x'a://b", "x, rtsp://y", "x?a://b/c"])
@pytest.mark.parametrize(
    "text", ["{}", "cannot open {}: refused", "rtsp://cam:554/1, then {}", "{} http://cam/2?token=T0K"]
)
def test_a_password_that_looks_like_another_address_is_one(password, text):
    out = redact(text.replace("{}", f"rtsp://anna:{password}@host/live"))
    assert "anna" not in out and "x" not in out and "b" not in out and "T0K" not in out and "@host/live" in out
    assert ("cam:554" in text) == ("rtsp://cam:554/1" in out)


@given(schemes, tokens, st.sampled_from(["token", "streamid", "passphrase", "sig", "x", ""]), texts)
def test_the_values_of_a_query_are_gone(scheme, token, name, text):
    out = redact(text.replace("{}", f"{scheme}://host/live.m3u8?{name}={token}&b=2#{token}"))
    assert hides(out, token)


@given(st.sampled_from(["rtmp", "rtmps"]), st.text("abcdefghij-0123456789", min_size=4), texts)
def test_a_stream_key_is_gone_however_short(scheme, key, text):
    assume(key not in "live" and key not in text)
    assert hides(redact(text.replace("{}", f"{scheme}://live.example/app/{key}")), key)


@given(tokens, texts)
def test_a_long_folder_is_taken_for_a_token(token, text):
    assert hides(redact(text.replace("{}", f"rtsps://nvr:7441/{token}/x")), token)


@given(secrets)
def test_an_address_inside_an_address_is_hidden_whole(secret):
    inner = quote(f"rtsp://user:{secret}@cam/1", safe="")
    for text in (f"http://proxy/?u={inner}", f"http://proxy/{inner}", f"got {inner} back"):
        assert hides(redact(text), secret) and quote(secret) not in redact(text)


@pytest.mark.parametrize(
    "text",
    ["Authorization: Digest username='u', response='S3CRET'", "passphrase=S3CRET", "token: 'S3 CRET' x",
     "stream_key=S3CRET", "Cookie: a=S3CRET"],
)  # fmt: skip
def test_headers_and_named_values_are_hidden(text):
    assert "S3" not in redact(text) and HIDDEN in redact(text)


@given(
    st.text()
    | st.lists(st.sampled_from(["rtsp://", "file://", "a:b@", "h/", "?t=1", " ", "'", "@", "[::1]:8", "#"])).map(
        "".join
    )
)
def test_twice_is_once(text):
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "text",
    ["", "clip.mp4: no such file.", "file:///home/me/a-rather-long-name-of-a-clip.mp4", "rtsp://10.0.0.7:554/Streaming/1",
     "rtsp://[::1]:8554/live", "http://cam/video.mjpg: no answer.", "stage fuse: ValueError: weight 0.7", "camera:0",
     "async:rtsp://cam/1", "file:///tmp/a@b.mp4"],
)  # fmt: skip
def test_what_is_no_secret_stays(text):
    assert redact(text) == text


def test_a_redactor_that_fails_shows_nothing(monkeypatch):
    monkeypatch.setattr(module, "redacted_line", lambda line: 1 / 0)
    assert redact("rtsp://a:b@c") == WITHHELD


@pytest.fixture
def guarded():
    factory, hooks = logging.getLogRecordFactory(), (sys.excepthook, module.threading.excepthook)
    guard_process()
    yield
    logging.setLogRecordFactory(factory)
    sys.excepthook, module.threading.excepthook = hooks


@pytest.fixture
def unguarded():
    """Whatever a command that ran in this process before has left."""
    factory = logging.getLogRecordFactory()
    logging.setLogRecordFactory(logging.LogRecord)
    yield
    logging.setLogRecordFactory(factory)


def logged(write):
    out = io.StringIO()
    handler, logger = logging.StreamHandler(out), logging.getLogger("somebody.else.entirely")
    logger.addHandler(handler)
    try:
        write(logger)
    finally:
        logger.removeHandler(handler)
    return out.getvalue()


def complain(logger):
    try:
        raise OSError("cannot open rtsp://user:S3CRET@cam/1")
    except OSError:
        logger.exception("lost %s", "rtsp://user:S3CRET@cam/2")


def test_without_the_guard_a_log_shows_the_password(unguarded):
    assert "S3CRET" in logged(complain)  # the control


def test_no_log_record_shows_a_password_whoever_writes_it(guarded):
    text = logged(complain)
    assert "S3CRET" not in text and "user" not in text
    assert "cam/1" in text and "cam/2" in text


def test_a_record_that_cannot_be_formatted_is_withheld(guarded):
    assert "S3CRET" not in logged(lambda logger: logger.error("%d", "rtsp://u:S3CRET@h"))


def test_tracebacks_of_threads_and_of_the_program_are_redacted():
    program = (
        "import threading; from warpfuse.engine.redact import guard_process; guard_process()\n"
        "def fail(): raise OSError('rtsp://u:S3CRET@h/1')\n"
        "t = threading.Thread(target=fail); t.start(); t.join(); fail()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    # The line of the program itself is quoted by nobody: `-c` has no file to read it from.
    assert done.returncode == 1 and done.stderr.count("rtsp://***@h/1") == 2 and "S3CRET" not in done.stderr


def test_a_reference_to_a_secret_is_none():
    assert redact("write ${secret:yard} in its place") == "write ${secret:yard} in its place"
    assert redact("a=1 secret:yard ${secret:ya rd} {secret:b} ${password:c}").count(HIDDEN) == 4
