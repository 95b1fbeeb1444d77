"""The interface of the page: REST under /api, a WebSocket at /api/live, the pictures, and the page itself."""

import asyncio
import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, WebSocket, WebSocketDisconnect
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from warpfuse.engine.errors import WarpfuseError
from warpfuse.graph.errors import ConfigError
from warpfuse.graph.plan.key_table import control_keys, live_keys, run_keys
from warpfuse.graph.plan.looks import taken_from
from warpfuse.midi import MidiInput
from warpfuse.stages.errors import Stopped
from warpfuse.web.picture_routes import add_pictures
from warpfuse.web.pictures import OVERLAYS, VIEWS
from warpfuse.web.presets import Presets, dump, parse
from warpfuse.web.preview import Peers
from warpfuse.web.session import PageSession
from warpfuse.web.source_library import SourceLibrary

# A development install links every file: only where the links lead do the files lie in the folder that is served.
STATIC = (Path(__file__).parent / "static" / "page.html").resolve().parent

_PERIOD_S = 0.2
MOST_PAINTED = 32 << 20  # bytes

Keys = Annotated[dict[str, Any], Body(description="Keys of a graph file, nested as there.")]


class Switch(BaseModel):
    """On or off."""

    model_config = ConfigDict(extra="forbid")

    on: bool


class Tap(BaseModel):
    """A tap, and when it was by the clock of who tapped, in milliseconds."""

    model_config = ConfigDict(extra="forbid")

    at_ms: float = Field(ge=0, le=1e15)


class Learn(BaseModel):
    """What a knob or pad is to do, as the key `midi` has it; None: nothing is to be learned."""

    model_config = ConfigDict(extra="forbid")

    to: Annotated[str, Field(max_length=200)] | dict[str, Any] | None


class StreamName(BaseModel):
    """A stream, by its name."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=32)


def interface(
    session: PageSession, presets: Presets, peers: Peers, library: SourceLibrary, midi: MidiInput | None = None
) -> APIRouter:
    """Everything under one router. Handlers that may wait for the graph run in the server's threads."""
    api = APIRouter()
    _add_settings(api, session)
    _add_bundle(api, session)
    _add_run(api, session, library)
    _add_sources(api, library)
    _add_streams(api, session)
    _add_keyframe(api, session)
    _add_presets(api, session, presets)
    _add_show(api, session, presets)
    _add_midi(api, midi)
    add_pictures(api, session.pictures, peers)
    for path, file in (("/", "page.html"), ("/docs", "docs.html")):
        _add_page(api, path, file)
    _add_view(api, session)
    return api


def _add_settings(api: APIRouter, session: PageSession) -> None:
    @api.get("/api/settings")
    def get_settings() -> dict[str, Any]:
        """All keys as they are now."""
        return session.settings()

    @api.patch("/api/settings")
    def patch_settings(keys: Keys) -> dict[str, Any]:
        """Lay some keys over the settings. 409 with `restart` true: right, but only from the next start on."""
        version = session.change(keys)
        return {"version": version, "settings": session.settings()}

    @api.get("/api/keys")
    def get_keys() -> dict[str, Any]:
        """The keys that may change while it runs, with their bounds, and what each does; those of a control by its
        kind; of the others what they do."""
        controls = {kind: [asdict(key) for key in keys] for kind, keys in control_keys().items()}
        return {"live": [asdict(key) for key in live_keys()], "controls": controls, "run": run_keys()}

    @api.get("/api/stats")
    def get_stats() -> dict[str, Any]:
        """State and figures of the last two seconds."""
        return {**session.stats(), "log": list(session.lines)}

    @api.websocket("/api/live")
    async def live(socket: WebSocket) -> None:
        """Stats five times a second, and the settings at first and whenever anybody changes them or a cue does.

        shown: the settings with the cue on top that is seen."""
        await socket.accept()
        await _Live(socket, session).serve()


def _add_bundle(api: APIRouter, session: PageSession) -> None:
    @api.get("/api/bundle")
    def get_bundle() -> dict[str, Any]:
        """The bundle in use, its styles, and the names of those that are known."""
        return session.held.bundle()

    @api.get("/api/bundle/thumbs/{style}", response_class=FileResponse)
    def get_thumb(style: str) -> Response:
        """A small picture in a style of the bundle in use. 404: it has none."""
        file = session.held.thumb(style)
        if file is None:
            return Response(status_code=404)
        return FileResponse(file, media_type="image/jpeg", headers={"cache-control": "max-age=86400"})

    @api.put("/api/images/{name}")
    async def put_image(name: str, request: Request) -> dict[str, Any]:
        """Take a picture, the body, PNG, JPEG or WebP of at most 128 KiB, as a style image of the bundle in use."""
        await run_in_threadpool(session.show_style, name, await request.body())
        return {"settings": session.settings()}

    @api.get("/api/images/{name}", response_class=Response)
    def get_image(name: str) -> Response:
        """A small JPEG of the picture of a style image. 404: it has none."""
        data = session.style_thumb(name)
        return Response(status_code=404) if data is None else Response(data, media_type="image/jpeg")


def _add_run(api: APIRouter, session: PageSession, library: SourceLibrary) -> None:
    @api.post("/api/start")
    def post_start(keys: Annotated[dict[str, Any] | None, Body()] = None) -> dict[str, Any]:
        """Start, with these keys laid over the settings. Answers when the graph runs, or was stopped before it did."""
        with contextlib.suppress(Stopped):
            session.start(library.whole(keys or {}))
            library.took(session.source)
        return session.stats()

    @api.post("/api/restart")
    def post_restart(keys: Annotated[dict[str, Any] | None, Body()] = None) -> dict[str, Any]:
        """Stop, and start with these keys laid over the settings."""
        with contextlib.suppress(Stopped):
            session.restart(library.whole(keys or {}))
            library.took(session.source)
        return session.stats()

    @api.post("/api/stop")
    def post_stop() -> dict[str, Any]:
        """End the run. Answers when its files are whole."""
        session.stop()
        return session.stats()

    @api.post("/api/pause")
    def post_pause() -> dict[str, Any]:
        """Read no more frames."""
        session.pause()
        return session.stats()

    @api.post("/api/resume")
    def post_resume() -> dict[str, Any]:
        """Read on."""
        session.resume()
        return session.stats()

    @api.post("/api/tap")
    def post_tap(tap: Tap) -> dict[str, float | None]:
        """Tap the tempo. Answers beats a minute, which the run has from the second tap on."""
        return {"bpm": session.tap(round(tap.at_ms * 1e6))}

    @api.post("/api/record")
    def post_record(switch: Switch) -> dict[str, Any]:
        """Record what is shown into a new file, or end that."""
        return {"file": session.record(switch.on)}


def _add_sources(api: APIRouter, library: SourceLibrary) -> None:
    @api.get("/api/sources")
    def get_sources() -> dict[str, Any]:
        """Sources to choose from: cameras with their modes, screens, files that were sent, addresses taken before."""
        return library.choices()

    @api.get("/api/files")
    def get_files(folder: Annotated[str, Query(max_length=4096)] = "") -> dict[str, Any]:
        """Folders and videos in a folder of this machine; refused where others are let in."""
        return library.folder(folder)

    @api.put("/api/uploads/{name}")
    async def put_upload(name: str, request: Request) -> dict[str, str]:
        """Keep the body, a video, under this name; its address as a source."""
        return {"url": await library.upload(name, request.stream())}


def _add_keyframe(api: APIRouter, session: PageSession) -> None:
    @api.get("/api/keyframe/frame.png", response_class=Response)
    def get_frame() -> Response:
        """The picture on show, to be painted over: the next keyframe is taken to be of this frame."""
        data = session.frame_to_paint()
        return Response(status_code=204) if data is None else Response(data, media_type="image/png")

    @api.put("/api/keyframe")
    async def put_keyframe(request: Request) -> dict[str, Any]:
        """Show the body, a PNG, JPEG or WebP file, as the keyframe of the frame that was saved last, or is on show."""
        painted = bytearray()
        async for piece in request.stream():
            painted += piece
            if len(painted) > MOST_PAINTED:
                raise ConfigError(f"a keyframe has at most {MOST_PAINTED >> 20} MiB, got more. Send a smaller picture")
        version = await run_in_threadpool(session.take_keyframe, bytes(painted))
        return {"version": version, "settings": session.settings()}

    @api.delete("/api/keyframe")
    def delete_keyframe() -> dict[str, Any]:
        """Show it no more."""
        return {"version": session.change({"stages": {"anchor": {"picture": "", "frame": "", "at": None}}})}


def _add_streams(api: APIRouter, session: PageSession) -> None:
    @api.post("/api/stream")
    def post_stream(wanted: StreamName) -> dict[str, Any]:
        """Look at this stream of a run of several, and control it."""
        session.select(wanted.name)
        return session.stats()

    @api.post("/api/streams")
    def post_streams(keys: Keys, name: Annotated[str, Query(max_length=32)] = "") -> dict[str, Any]:
        """Have a stream of these keys join; without a name it is called after its source."""
        return {"name": session.add(keys, name)}

    @api.delete("/api/streams/{name}")
    def delete_stream(name: str) -> dict[str, Any]:
        """Have a stream leave. Answers when its files are whole."""
        session.remove(name)
        return session.stats()


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError("a graph file is text in UTF-8") from None


def _add_presets(api: APIRouter, session: PageSession, presets: Presets) -> None:
    def is_look_alone(name: str) -> bool:
        """It came with a show, and is no file of this machine's."""
        return name in session.held.looks and name not in presets.names()

    @api.get("/api/presets")
    def get_presets() -> list[str]:
        """Names of the presets and of the looks that came with a show, in the order in which they came."""
        return _names(session, presets)

    @api.get("/api/presets/{name}", response_class=PlainTextResponse)
    def get_preset(name: str) -> Response:
        """A preset as a graph file."""
        text = dump(session.held.looks[name]) if is_look_alone(name) else presets.text(name)
        return PlainTextResponse(
            text, headers={"content-disposition": f'attachment; filename="{name}.yaml"'}, media_type="application/yaml"
        )

    @api.put("/api/presets/{name}")
    async def put_preset(name: str, request: Request) -> dict[str, Any]:
        """Keep a graph file, the body, as a preset; without a body the settings as they are."""
        text = _text(await request.body()) or dump(session.held.given())
        presets.save(name, text)
        await run_in_threadpool(session.learn, {name: parse(text)})
        return {"names": _names(session, presets)}

    @api.delete("/api/presets/{name}")
    def delete_preset(name: str) -> dict[str, Any]:
        """Forget a preset."""
        if not is_look_alone(name):
            presets.delete(name)
        session.learn({name: None})
        return {"names": _names(session, presets)}

    @api.post("/api/presets/{name}/load")
    def load_preset(
        name: str, restart: Annotated[bool, Query()] = False, over_s: Annotated[float, Query()] = 0
    ) -> dict[str, Any]:
        """Recall the look of a preset; with `restart` what a running graph was built with as well. over_s: a crossfade.

        The same as `look` and `over_s` among the settings, but that the file is read again."""
        if not is_look_alone(name):
            session.learn({name: presets.load(name)})
        keys = {"look": name, "over_s": over_s}
        if restart and not session.over:
            session.restart(keys)
        else:
            session.change(keys)
        return {"settings": session.settings()}


def _names(session: PageSession, presets: Presets) -> list[str]:
    return list(dict.fromkeys((*session.held.looks, *presets.names())))


def _add_show(api: APIRouter, session: PageSession, presets: Presets) -> None:
    @api.get("/api/show", response_class=PlainTextResponse)
    def get_show() -> Response:
        """Bundle, looks, tempo, schedule and MIDI map as one graph file: a show that another machine goes on with."""
        headers = {"content-disposition": 'attachment; filename="show.yaml"'}
        return PlainTextResponse(dump(session.held.show()), headers=headers, media_type="application/yaml")

    @api.put("/api/show")
    async def put_show(request: Request) -> dict[str, Any]:
        """Take a show, the body. It has to be of the bundle in use."""
        keys = taken_from(parse(_text(await request.body())), session.held.now.bundle)
        await run_in_threadpool(session.change, keys)
        return {"names": _names(session, presets)}


def know_presets(session: PageSession, presets: Presets) -> None:
    """A preset is a look that is kept: whoever controls the run recalls it by its name. What cannot be used is told."""
    for name in presets.names():
        try:
            if name not in session.held.looks:
                session.learn({name: presets.load(name)})
        except WarpfuseError as error:
            session.tell(f"preset {name}: {error}")


def _add_midi(api: APIRouter, midi: MidiInput | None) -> None:
    def opened() -> MidiInput:
        if midi is None:
            raise ConfigError("no MIDI port is open: warpfuse serve --midi PORT; warpfuse doctor lists them")
        return midi

    @api.get("/api/midi")
    def get_midi() -> dict[str, Any]:
        """The port that is open, and what the next knob or pad that moves will do; the map is among the settings."""
        return {"port": None, "learning": None} if midi is None else {"port": midi.port, "learning": midi.learning}

    @api.post("/api/midi/learn")
    def post_learn(wanted: Learn) -> dict[str, Any]:
        """Have the next knob or pad that moves do this from now on; null: learn no more."""
        opened().learn(wanted.to)
        return get_midi()


class _Live:
    """One WebSocket. It ends with the client; what the client sends is read and left."""

    def __init__(self, socket: WebSocket, session: PageSession) -> None:
        self._socket, self._session = socket, session

    async def serve(self) -> None:
        told = asyncio.create_task(self._tell())
        try:
            while (await self._socket.receive())["type"] != "websocket.disconnect":
                pass
        finally:
            told.cancel()
            await asyncio.wait([told])

    async def _tell(self) -> None:
        changed, cue, due = -1, self._session.cue, 0.0
        loop = asyncio.get_running_loop()
        try:
            while True:
                if (changed, cue) != (self._session.changed.count, self._session.cue):
                    changed, cue = self._session.changed.count, self._session.cue
                    told = {"settings": self._session.settings(), "shown": self._session.shown()}
                    await self._socket.send_json({"type": "settings", **told})
                now = loop.time()
                if now >= due:
                    due = now + _PERIOD_S
                    await self._socket.send_json({"type": "stats", **self._session.stats()})
                await self._session.changed.wait(changed, max(0.0, due - loop.time()))
        except (WebSocketDisconnect, RuntimeError):
            return  # gone between two messages


_ASKED: dict[str, tuple[str, ...]] = {
    "view": VIEWS,
    "overlay": OVERLAYS,
    "fit": ("contain", "cover"),
    "by": ("auto", "webrtc", "mjpeg"),
}
"""What the address of the bare picture may ask for."""

_NOTHING = (
    '<!doctype html><html lang="en"><title>warpfuse</title><link rel="stylesheet" href="/static/view.css"></html>'
)


def _add_view(api: APIRouter, session: PageSession) -> None:
    @api.get("/view", include_in_schema=False, response_class=Response)
    def view(request: Request) -> Response:
        """The bare picture. One that is asked for wrongly may be on air: it shows nothing, and the page says why."""
        for key, value in request.query_params.multi_items():
            if value not in _ASKED.get(key, ()):
                known = ", ".join(_ASKED.get(key, _ASKED))
                session.tell(f"/view: {key[:40]}={value[:40]} is not known, so it shows nothing; known: {known}")
                return HTMLResponse(_NOTHING, 422)
        return FileResponse(STATIC / "view.html")


def _add_page(api: APIRouter, path: str, file: str) -> None:
    @api.get(path, include_in_schema=False, response_class=FileResponse)
    def page() -> Response:
        return FileResponse(STATIC / file)
