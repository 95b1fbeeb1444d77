"""Law: of a source that offers its picture in several sizes the one nearest above what is asked for is taken, and no
other is fetched."""

from fractions import Fraction

import av
import pytest
from av.stream import Disposition
from av.video.frame import VideoFrame
from support import servers

from warpfuse.stages.errors import SourceLost
from warpfuse.stages.sources import open_source
from warpfuse.stages.sources.connection import Patience
from warpfuse.stages.sources.variants import choose_variant, nearest_above

from .conftest import counted, number_in

HASTY = Patience(first=8.0, stall=5.0, silence=4.0, least=0.02, most=0.05, total=60.0)
SIZES = {"small": (64, 36), "middle": (128, 72), "large": (256, 144)}
BANDWIDTH = {"small": 100_000, "middle": 400_000, "large": 900_000}


@pytest.mark.parametrize(
    ("near", "taken"),
    [((64, 36), 0), ((65, 36), 1), ((100, 60), 1), ((128, 72), 1), ((128, 73), 2), ((256, 144), 2), ((999, 999), 2)],
)
def test_the_nearest_above_is_the_smallest_that_loses_nothing(near, taken):
    assert nearest_above([*SIZES.values()], near) == taken
    assert [*SIZES.values()][::-1][nearest_above([*SIZES.values()][::-1], near)] == [*SIZES.values()][taken]


def test_what_tells_no_size_is_taken_only_where_none_does():
    assert nearest_above([None, (64, 36), (0, 0)], (32, 32)) == 1
    assert nearest_above([None, None, (0, 0)], (32, 32)) == 0
    assert nearest_above([(64, 36), (64, 36)], (999, 999)) == 0, "of equal ones the first"


MASTER = """#EXTM3U
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a1",NAME="en",DEFAULT=YES,URI="sound/en.m3u8?t=1,2"
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a2",NAME="en",URI="sound/low.m3u8"
#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="s",NAME="en",URI="subs.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=96000,CODECS="mp4a.40.2",AUDIO="a2"
sound/low.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=800000,CODECS="avc1.4d401e,mp4a.40.2",RESOLUTION=640x360,AUDIO="a1",SUBTITLES="s"
/v/360.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=4000000,RESOLUTION=1280x720,AUDIO="a1"
720.m3u8?a=b
#EXT-X-STREAM-INF:BANDWIDTH=2000000,RESOLUTION=1280x720,AUDIO="a2"
720low.m3u8
#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=90000,RESOLUTION=640x360,URI="i.m3u8"
"""


def test_a_playlist_of_the_chosen_alone_keeps_the_sound_that_belongs_to_it():
    chosen = choose_variant(MASTER, "https://u:p@cdn.example/live/master.m3u8?token=1", (800, 450))
    lines = chosen.playlist.splitlines()
    assert lines[-1] == "https://u:p@cdn.example/live/720.m3u8?a=b", "the best of its size"
    assert [line for line in lines if "URI=" in line] == [
        '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a1",NAME="en",DEFAULT=YES,URI="https://u:p@cdn.example/live/sound/en.m3u8?t=1,2"'
    ]
    assert len([line for line in lines if not line.startswith("#")]) == 1
    assert chosen.note == "1280x720 is taken of 3 variants (also 640x360)"
    assert choose_variant(MASTER, "https://h/m.m3u8", (320, 180)).playlist.splitlines()[-1] == "https://h/v/360.m3u8"


def test_where_there_is_nothing_to_choose_nothing_is():
    one = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,RESOLUTION=64x36\nv.m3u8\n"
    media = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\ns.ts\n#EXT-X-ENDLIST\n"
    for playlist in (one, media, "", "#EXTM3U", '#EXT-X-DEFINE:NAME="a",VALUE="b"\n' + MASTER):
        assert choose_variant(playlist, "http://h/m.m3u8", (64, 36)) is None


def test_without_sizes_the_best_bandwidth_is_taken():
    playlist = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=100000\na\n#EXT-X-STREAM-INF:BANDWIDTH=900000\nb\n"
    chosen = choose_variant(playlist, "http://h/m", (64, 36))
    assert chosen.playlist.splitlines()[-1] == "http://h/b" and "900 kbit/s" in chosen.note


@pytest.fixture
def web(tmp_path):
    web = servers.Web(tmp_path)
    yield web
    web.close()


@pytest.fixture
def offered(tmp_path, make_clip):
    """A playlist of three sizes, each of three segments of ten pictures."""
    lines = ["#EXTM3U"]
    for name, (width, height) in SIZES.items():
        pictures = [counted(index, width, height) for index in range(30)]
        segments = [f"{name}{part}.ts" for part in range(3)]
        for part, segment in enumerate(segments):
            stamps = range(10 * part, 10 * part + 10)
            options = {"crf": "1", "bf": "0"}
            muxing = {"mpegts_copyts": "1"}
            make_clip(
                segment, pictures[10 * part :][:10], pts=stamps, options=options, muxer_options=muxing, format="mpegts"
            )
        parts = "".join(f"#EXTINF:0.4,\n{segment}\n" for segment in segments)
        (tmp_path / f"{name}.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n{parts}#EXT-X-ENDLIST\n")
        lines += [f"#EXT-X-STREAM-INF:BANDWIDTH={BANDWIDTH[name]},RESOLUTION={width}x{height}", f"{name}.m3u8"]
    (tmp_path / "master.m3u8").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.mark.parametrize(("size", "taken"), [((64, 36), "small"), ((100, 50), "middle"), ((640, 360), "large")])
def test_one_variant_is_shown_whole_and_no_other_is_fetched(web, offered, size, taken):
    source = open_source(f"{web.url}/master.m3u8", size=size, patience=HASTY)
    frames = list(iter(source.read, None))
    news = source.news()
    source.close()
    assert [number_in(frame.rgb) for frame in frames] == list(range(30)) and not source.info.live
    asked = {path.strip("/") for path, _ in web.heard} - {"master.m3u8"}
    assert asked == {f"{taken}.m3u8", *(f"{taken}{part}.ts" for part in range(3))}
    width, height = SIZES[taken]
    assert [line for line in news if f"{width}x{height} is taken of 3 variants" in line]


def test_without_the_choice_all_would_be_fetched(web, offered):
    with av.open(f"{web.url}/master.m3u8") as plain:  # the control
        assert len([*plain.demux(plain.streams.video[0])]) >= 30
    assert {f"/{name}2.ts" for name in SIZES} <= {path for path, _ in web.heard}


def test_a_choice_survives_a_new_connection_and_an_account(web, offered, tmp_path):
    password = "a#b/c"
    web.account = ("anna", password, "Basic")
    for path in [*tmp_path.glob("*.m3u8"), *tmp_path.glob("*.ts")]:
        web.answers[f"/{path.name}"] = (
            {"Content-Length": str(path.stat().st_size)},
            lambda path=path: [path.read_bytes()],
        )
    source = open_source(web.url.replace("//", f"//anna:{password}@") + "/master.m3u8", size=(64, 36), patience=HASTY)
    frames = list(iter(source.read, None))
    source.close()
    assert [number_in(frame.rgb) for frame in frames] == list(range(30))


@pytest.mark.parametrize("end", [".html", ".png", ".jpg", "", ".php?part=ts"])
def test_segments_may_be_called_what_they_like(web, tmp_path, make_clip, end):
    clip = make_clip("s.ts", [counted(index) for index in range(10)], options={"crf": "1"}, format="mpegts")
    segment = f"seg{end}"
    web.answers[f"/{segment}"] = {"Content-Type": "image/png"}, lambda: [clip.read_bytes()]
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.4,\n{segment}\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.m3u8").write_text(playlist)
    source = open_source(f"{web.url}/list.m3u8", patience=HASTY)
    assert [number_in(frame.rgb) for frame in iter(source.read, None)] == list(range(10))
    source.close()


@pytest.mark.parametrize(
    "kind", ["text/html", "text/plain", "application/vnd.apple.mpegurl", "application/octet-stream"]
)
def test_a_playlist_is_known_by_what_is_in_it(web, offered, kind):
    text = (offered / "master.m3u8").read_bytes()
    web.answers["/play.php?id=1"] = {"Content-Type": kind}, lambda: [text]
    source = open_source(f"{web.url}/play.php?id=1", size=(64, 36), patience=HASTY)
    assert [number_in(frame.rgb) for frame in iter(source.read, None)] == list(range(30))
    source.close()


def test_a_variant_that_is_not_there_is_said(web, offered):
    (offered / "small.m3u8").unlink()
    with pytest.raises(SourceLost, match="cannot be reached"):
        open_source(f"{web.url}/master.m3u8", size=(64, 36), patience=Patience(first=1.0, least=0.05, most=0.1))


@pytest.fixture
def two_lenses(tmp_path):
    """A clip with two pictures, the second of which is the larger one and the default."""
    path = tmp_path / "lenses.mkv"
    with av.open(str(path), "w") as out:
        streams = []
        for width, height in (SIZES["small"], SIZES["large"]):
            stream = out.add_stream("libx264", rate=25, options={"crf": "1"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            streams.append(stream)
        streams[0].disposition, streams[1].disposition = Disposition(0), Disposition.default
        for index in range(10):
            for stream in streams:
                frame = VideoFrame.from_ndarray(counted(index, stream.width, stream.height), format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("size", "taken"), [((64, 36), "small"), ((65, 36), "large")])
def test_of_two_lenses_in_one_stream_the_one_that_fits_is_shown(web, two_lenses, size, taken):
    source = open_source(f"{web.url}/{two_lenses.name}", near=size, patience=HASTY)
    frames, news = list(iter(source.read, None)), source.news()
    source.close()
    assert (source.info.width, source.info.height) == SIZES[taken]
    assert [number_in(frame.rgb) for frame in frames] == list(range(10))
    width, height = SIZES[taken]
    assert [line for line in news if f"the picture of {width}x{height} is taken of 2" in line]


def test_of_two_pictures_in_a_file_the_default_is_shown_and_it_is_said(two_lenses):
    source = open_source(str(two_lenses))
    frames = list(iter(source.read, None))
    warning = source.warning
    source.close()
    assert (source.info.width, source.info.height) == SIZES["large"] and len(frames) == 10
    assert "2 video streams: that of 256x144 (stream 1) is shown" in warning
