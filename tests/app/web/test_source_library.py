"""Sources to choose from, and what may be named by whom."""

import json

import pytest
from starlette.testclient import TestClient

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.config import validate
from warpfuse.shipped_clip import CLIP
from warpfuse.web.security import AccessRules
from warpfuse.web.server import application
from warpfuse.web.session import PageSession, at_own_rate
from warpfuse.web.source_library import SourceLibrary

RTSP = "rtsp://me:secret@camera.lan/one"


@pytest.fixture
def client(session, presets, library):
    with TestClient(application(session, presets, AccessRules(), library), base_url="http://127.0.0.1") as client:
        yield client


def test_an_uploaded_video_is_a_source(client, session, library):
    answer = client.put("/api/uploads/my clip.mp4", content=CLIP.read_bytes())
    assert answer.status_code == 200, "a video is larger than what else a request may hold"
    (sent,) = client.get("/api/sources").json()["uploads"]
    assert sent == {"name": "my clip.mp4", "url": answer.json()["url"]}
    assert client.post("/api/start", json={"source": sent["url"], "frames": 3}).json()["state"] == "running"
    session.stop()


@pytest.mark.parametrize(
    ("name", "body", "told"),
    [
        ("a.mp4", b"no video", "a.mp4"),
        ("a.exe", b"MZ", "a video is expected"),
        (".a.mp4", b"x", "without folders"),
        ("..%2Fa.mp4", b"x", ""),
    ],
)
def test_what_is_no_video_is_refused_and_not_kept(client, library, tmp_path, name, body, told):
    answer = client.put(f"/api/uploads/{name}", content=body)
    assert answer.status_code in (404, 405, 422) and told in answer.text
    assert not list(tmp_path.rglob("*.mp4")) and not list(tmp_path.rglob("*.exe"))


def test_a_full_disk_is_told(client, library, monkeypatch):
    from warpfuse.web import source_library

    monkeypatch.setattr(source_library, "MOST_UPLOADED", 1000)
    answer = client.put("/api/uploads/a.mp4", content=CLIP.read_bytes())
    assert answer.status_code == 422 and "no room" in answer.text and not list(library.uploads.iterdir())


def test_folders_are_shown_on_this_machine_alone(client, session, presets, tmp_path):
    (tmp_path / "shows").mkdir()
    (tmp_path / "shows" / "b.MOV").touch()
    (tmp_path / "shows" / "notes.txt").touch()
    found = client.get("/api/files", params={"folder": str(tmp_path / "shows")}).json()
    assert found["files"] == ["b.MOV"] and found["parent"] == str(tmp_path.resolve())
    assert "cannot be listed" in client.get("/api/files", params={"folder": "/none"}).json()["error"]
    closed = SourceLibrary(tmp_path, browsing=False, recent=tmp_path / "recent.json")
    with TestClient(application(session, presets, AccessRules(), closed), base_url="http://127.0.0.1") as other:
        assert other.get("/api/files").status_code == 422 and not other.get("/api/sources").json()["browsing"]


def test_whoever_may_name_no_file_may_name_one_that_was_sent(keys, library, tmp_path):
    session = PageSession(keys, record_to=tmp_path, fixed_files=True, uploads=library.uploads)
    library.uploads.mkdir()
    sent = library.uploads / "a.mp4"
    sent.write_bytes(CLIP.read_bytes())
    session.change({"source": str(sent)})
    assert session.source == str(sent)
    for other in (str(CLIP), str(library.uploads / ".." / "a.mp4")):
        with pytest.raises(ConfigError, match="on the command line only"):
            session.change({"source": other})
    session.close()


def test_addresses_taken_before_are_shown_without_their_passwords_and_taken_whole(library, tmp_path):
    library.took(RTSP)
    library.took("pattern:96x64")
    library.took("rtsp://other.lan/two")
    library.took(RTSP)
    shown = library.choices()["recent"]
    assert len(shown) == 2 and "secret" not in json.dumps(shown) and "camera.lan" in shown[0]
    assert library.whole({"source": shown[0], "steps": 1}) == {"source": RTSP, "steps": 1}
    assert library.whole({"source": "x"}) == {"source": "x"}
    assert (tmp_path / "recent.json").stat().st_mode & 0o777 == 0o600


def test_the_shipped_clip_is_among_them(client):
    assert client.get("/api/sources").json()["clip"] == str(CLIP)


@pytest.mark.parametrize(
    ("keys", "paced"),
    [
        ({"source": str(CLIP)}, True),
        ({"source": str(CLIP), "sinks": ["out.mp4"]}, False),
        ({"source": "pattern:96x64"}, False),
    ],
)
def test_a_file_that_is_only_watched_plays_at_its_own_rate(keys, paced):
    assert at_own_rate(validate(keys)).paced is paced
