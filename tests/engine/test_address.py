"""Law: user and password go up to the `@` before the host, whatever they hold, and FFmpeg gets what was meant."""

from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from warpfuse.engine.address import account_end, account_of, for_ffmpeg
from warpfuse.engine.redact import redact

passwords = st.text("abcZ019/?#[]:@% &=\\'\"~^ü", min_size=1, max_size=12)
hosts = st.sampled_from(["192.168.1.20", "10.0.0.7:554", "[::1]:8554", "localhost", "cam.example:8080", "a.b.example"])
schemes = st.sampled_from(["rtsp", "rtsps", "http", "https", "srt", "RTSP"])
tails = st.sampled_from(["", "/x", "/Streaming/Channels/101?a=1", "?a=b", "/live#udp", "/live#kbps=4000,gop=1", "/"])


def sent(url):
    """User and password as whoever follows RFC 3986 understands an address."""
    parts = urlsplit(url)
    return unquote(parts.username or ""), unquote(parts.password or "")


@given(schemes, passwords, hosts, tails)
def test_a_password_holds_any_character(scheme, password, host, tail):
    url = f"{scheme}://admin:{password.replace('%', '%25')}@{host}{tail}"
    assume("@[" not in password)  # an IPv6 host may begin there: the address can be meant either way
    assert sent(for_ffmpeg(url)) == ("admin", password) == account_of(url)
    assert for_ffmpeg(url).endswith(f"@{host}{tail}")


@pytest.mark.parametrize(
    ("url", "password", "rest"),
    [
        ("rtsp://u:a#b@host/x", "a#b", "host/x"),
        ("rtsp://u:a/b@host/x", "a/b", "host/x"),
        ("rtsp://u:a?b@host/x", "a?b", "host/x"),
        ("rtsp://u:a[b@host/x", "a[b", "host/x"),
        ("rtsp://u:a:b@host/x", "a:b", "host/x"),
        ("rtsp://u:a@b@host/x", "a@b", "host/x"),
        ("rtsp://u:p@ss/w@10.0.0.7/x", "p@ss/w", "10.0.0.7/x"),
        ("rtsp://u:1234/5@10.0.0.7/x", "1234/5", "10.0.0.7/x"),
        ("rtsp://u:100%@host/x", "100%", "host/x"),
        ("rtsp://u:a%2Fb@host/x", "a/b", "host/x"),  # who percent-encodes is understood as before
        ("rtsp://u:a#b@host/live@720p", "a#b@host/live", "720p"),  # a bare word may be a host: the last one is taken
        ("rtsp://u:a#b@10.0.0.7/live@720p", "a#b", "10.0.0.7/live@720p"),
        ("rtsp://u:p@host/x@y", "p", "host/x@y"),  # these are understood without any guess
        ("http://u:p@10.0.0.7/x?mail=me@mail.example", "p", "10.0.0.7/x?mail=me@mail.example"),
    ],
)
def test_where_the_password_ends(url, password, rest):
    assert account_of(url) == ("u", password)
    encoded = for_ffmpeg(url)
    assert sent(encoded) == ("u", password) and encoded.partition("@")[2] == rest
    assert for_ffmpeg(encoded) == encoded


@pytest.mark.parametrize(
    "url",
    ["rtsp://10.0.0.7:554/live@main", "https://video.example/@channel", "http://cam/a:b@c", "http://cam:8080/me@here",
     "https://video.example:443/mail@10.0.0.7", "clip@home.mp4", "pattern:64x64", "camera:0", "/tmp/a:b@c.mp4"],
)  # fmt: skip
def test_an_at_sign_in_the_path_is_no_password(url):
    assert account_end(url) == -1 and account_of(url) is None and for_ffmpeg(url) == url


def test_ffmpegs_rtmp_takes_a_password_as_it_is_or_not_at_all():
    assert for_ffmpeg("rtmp://u:a%40b:c@host/app/key") == "rtmp://u:a@b:c@host/app/key"
    with pytest.raises(ValueError, match="no '/'") as refused:
        for_ffmpeg("rtmp://u:S3C/RET@host/app/key")
    assert "S3C" not in str(refused.value)


@given(schemes, passwords, hosts, tails)
def test_what_is_a_password_here_is_hidden_from_every_text(scheme, password, host, tail):
    secret = f"Ǽ{password}Ǽ"
    for shown in (secret, quote(secret, safe="")):
        for text in ("{}", "cannot open '{}'", "async:{}: refused", "one {}, {}."):
            out = redact(text.replace("{}", f"{scheme}://admin:{shown}@{host}{tail}"))
            assert "Ǽ" not in out and quote("Ǽ") not in out and secret not in out
