from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpfuse.stages.errors import SinkError
from warpfuse.stages.sinks.address import Address, shown, without

SECRET = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@/?&:#= %._-", min_size=6, max_size=20)


def test_settings_follow_the_number_sign_and_never_leave() -> None:
    address = Address.parse("rtsp://host:8554/live?a=b#kbps=4000,gop=2.5,preset=fast")
    assert address.url == "rtsp://host:8554/live?a=b"
    settings = address.settings
    assert (settings.kbps, settings.gop, settings.preset, settings.codec) == (4000, 2.5, "fast", "auto")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("rtsp:///live", "no host"),
        ("rtsp://host:99999/live", "no host"),
        ("rtsp://host/live#kpbs=1", "Did you mean 'kbps'"),
        ("rtsp://host/live#kbps=fast", "kbps is a number, not 'fast'"),
        ("rtsp://host/live#gop=60", "gop is 60; it must be from 0.1 to 10"),
        ("rtsp://host/live#preset=slow", "preset is one of ultrafast"),
    ],
)
def test_what_is_not_understood_is_said(url: str, said: str) -> None:
    with pytest.raises(SinkError, match=said):
        Address.parse(url)


@given(SECRET, SECRET, SECRET)
def test_no_secret_is_shown(user: str, password: str, key: str) -> None:
    user, password, key = (f"{text}zQ" for text in (user, password, key))
    url = f"rtmp://{quote(user, '')}:{quote(password, '')}@live.test:1935/app/{quote(key, '')}"
    for text in (shown(url), without(f"Connection to {url} failed: {quote(key, '')} refused", url)):
        assert quote(password, "") not in text
        assert quote(key, "") not in text
        assert quote(user, "") not in text
    assert shown(url) == "rtmp://live.test:1935/..."
