from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpfuse.stages.errors import SinkError
from warpfuse.stages.sinks.address import Address
from warpfuse.stages.sinks.stream import check as check_stream

SECRET = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@/?&:#= %._-", min_size=6, max_size=20)


def test_settings_follow_the_number_sign_and_never_leave() -> None:
    address = Address.parse("rtsp://host:8554/live?a=b#kbps=4000,gop=2.5,preset=fast")
    assert address.url == "rtsp://host:8554/live?a=b"
    settings = address.settings
    assert (settings.kbps, settings.gop, settings.preset, settings.codec) == (4000, 2.5, "fast", "auto")


@pytest.mark.parametrize("password", ["a#b", "a/b?c", "x[y", "p@ss:w/rd", "100%", "kbps=9#gop=2"])
def test_a_password_is_no_setting(password: str) -> None:
    address = Address.parse(f"rtsp://anna:{password}@192.168.1.20:8554/live#kbps=4000,gop=2.5")
    parts = urlsplit(address.url)
    assert (unquote(parts.password or ""), parts.hostname, parts.port) == (password, "192.168.1.20", 8554)
    assert (address.settings.kbps, address.settings.gop) == (4000, 2.5)


def test_the_rest_of_a_passphrase_is_not_shown_as_a_setting() -> None:
    with pytest.raises(SinkError, match=r"what follows its # is no setting. .*%23") as refused:
        Address.parse("srt://host:9000?passphrase=long#S3CRET")
    assert "S3CRET" not in str(refused.value)


@pytest.mark.parametrize("url", ["rtsp:/anna:S3CRET@host/live", "rtmp:anna:S3CRET@host/app/key"])
def test_an_address_without_its_slashes_shows_no_password(url: str) -> None:
    with pytest.raises(SinkError, match="no host behind two slashes") as refused:
        Address.parse(url)
    assert "S3CRET" not in str(refused.value)


def test_the_source_is_known_however_its_password_is_written() -> None:
    with pytest.raises(SinkError, match="is the source as well"):
        check_stream("rtsp://u:a%23b@host/live#kbps=4000", "rtsp://u:a#b@host/live#udp")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("rtsp:///live", "no host"),
        ("rtsp://host:99999/live", "no host"),
        ("rtmp://u:a#b@host/app/key", "takes no '/'"),
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
