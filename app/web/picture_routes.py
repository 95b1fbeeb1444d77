"""The pictures of a run, as an interface: snapshots, JPEGs without end, WebRTC by our own signalling and by WHEP."""

import secrets

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from warpfuse.web.pictures import Look, Overlay, Pictures, View
from warpfuse.web.preview import BOUNDARY, Peers, jpegs

_SDP = "application/sdp"


class Offer(BaseModel):
    """A browser's wish to look by WebRTC."""

    model_config = ConfigDict(extra="forbid")

    sdp: str = Field(max_length=100_000)
    view: View = "styled"
    overlay: Overlay = "none"


class LookRequest(BaseModel):
    """How to look from now on."""

    model_config = ConfigDict(extra="forbid")

    view: View = "styled"
    overlay: Overlay = "none"


def add_pictures(api: APIRouter, pictures: Pictures, peers: Peers) -> None:
    """Add the handlers to a router."""
    _add_jpegs(api, pictures)
    _add_webrtc(api, peers)
    _add_whep(api, peers)


def _add_jpegs(api: APIRouter, pictures: Pictures) -> None:
    @api.get("/api/snapshot.png", response_class=Response)
    def get_snapshot(view: View = "styled", overlay: Overlay = "none") -> Response:
        """The newest picture."""
        png = pictures.png(Look(view, overlay))
        if png is None:
            return Response(status_code=204)
        return Response(png, media_type="image/png")

    @api.get("/mjpeg", include_in_schema=False, response_class=StreamingResponse)  # as the sink `page:` calls it
    @api.get("/stream.mjpeg", response_class=StreamingResponse)
    async def get_stream(view: View = "styled", overlay: Overlay = "none") -> Response:
        """The live pictures as JPEGs without end."""
        return StreamingResponse(
            jpegs(pictures, Look(view, overlay)), media_type=f"multipart/x-mixed-replace; boundary={BOUNDARY}"
        )


def _add_webrtc(api: APIRouter, peers: Peers) -> None:
    @api.post("/api/webrtc")
    async def post_webrtc(offer: Offer) -> dict[str, str]:
        """Look by WebRTC: an offer in, the answer out."""
        number = secrets.token_urlsafe(12)
        return {"id": number, "sdp": await peers.answer(number, offer.sdp, Look(offer.view, offer.overlay))}

    @api.patch("/api/webrtc/{number}")
    async def patch_webrtc(number: str, wanted: LookRequest) -> dict[str, str]:
        """Look at something else."""
        peers.look(number, Look(wanted.view, wanted.overlay))
        return {}

    @api.delete("/api/webrtc/{number}")
    async def delete_webrtc(number: str) -> dict[str, str]:
        """Look no more."""
        await peers.leave(number)
        return {}


def _add_whep(api: APIRouter, peers: Peers) -> None:
    @api.post("/whep", response_class=Response)
    async def post_whep(request: Request, view: View = "styled", overlay: Overlay = "none") -> Response:
        """Look by WHEP: the body is an SDP offer; 201 with the answer, and the address of the session."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _SDP:
            return JSONResponse({"error": f"expected {_SDP}"}, 415)
        number = secrets.token_urlsafe(12)
        offer = (await request.body()).decode("utf-8", "replace")
        answer = await peers.answer(number, offer, Look(view, overlay))
        return Response(answer, 201, {"location": f"/whep/{number}"}, media_type=_SDP)

    @api.delete("/whep/{number}")
    async def delete_whep(number: str) -> Response:
        """End a session of WHEP. 404: there is none of this name."""
        return Response(status_code=200 if await peers.leave(number) else 404)
