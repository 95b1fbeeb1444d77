from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpfuse.stages.errors import SinkError
from warpfuse.stages.sinks.address import Address

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
def test_no_secret_is_in_an_error(user: str, password: str, key: str) -> None:
    user, password, key = (quote(f"{text}zQ", "") for text in (user, password, key))
    with pytest.raises(SinkError) as caught:
        Address.parse(f"rtmp://{user}:{password}@live.test:1935/app/{key}#kpbs=1")
    said = str(caught.value)
    assert "rtmp://***@live.test:1935/app/***" in said
    assert password not in said
    assert key not in said
