"""The page of a cluster on its head: all streams, each with a picture; where Prometheus finds the hosts; bundles.

It reads, and changes nothing.

/                               the page
/api/cluster                    hosts and streams, as `warpfuse cluster status` shows them
/api/streams/NAME/picture.jpg   what the stream showed last, of the host that runs it
/sd                             hosts for Prometheus, as its http_sd_configs takes them
/bundles/SHA256/FILE            files of a bundle, for hosts
"""

import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import msgspec
from fastapi import FastAPI
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles

from warpfuse.cluster.bundle_store import BundleStore
from warpfuse.cluster.controller import Status
from warpfuse.engine.bundle import DESCRIPTION, read_description
from warpfuse.engine.errors import WarpfuseError
from warpfuse.engine.redact import redact
from warpfuse.version import __version__
from warpfuse.web.routes import STATIC
from warpfuse.web.security import AccessRules, Guard

_PICTURE_S = 5.0


def application(cluster: str, status: Callable[[], Status], bundles: BundleStore, access: AccessRules) -> FastAPI:
    """The page as an ASGI application.

    status  asks the controller. Raises ConfigError while it does not answer
    access  its token is what hosts are asked with too
    """
    app = FastAPI(title="warpfuse cluster", version=__version__, docs_url=None, redoc_url=None)
    _add_page(app)
    _add_status(app, cluster, status)
    _add_pictures(app, status, access.token or "")
    _add_bundles(app, bundles)
    app.mount("/static", StaticFiles(directory=STATIC))
    app.add_middleware(Guard, access=access)
    app.add_exception_handler(WarpfuseError, _told)
    return app


def _add_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False, response_class=FileResponse)
    def page() -> Response:
        return FileResponse(STATIC / "cluster.html")


def _add_status(app: FastAPI, cluster: str, status: Callable[[], Status]) -> None:
    @app.get("/api/cluster")
    def get_cluster() -> dict[str, Any]:
        """Hosts, streams, and what is wrong."""
        told: dict[str, Any] = msgspec.to_builtins(status())
        return {"cluster": cluster, **{key: told[key] for key in ("hosts", "streams", "troubles")}}

    @app.get("/sd")
    def get_targets() -> list[dict[str, Any]]:
        """Every host that serves figures, with labels."""
        return [
            {
                "targets": [host.http],
                "labels": {"cluster": cluster, "node": host.node, "host": host.name, "gpu": host.gpu},
            }
            for host in status().hosts
            if host.http
        ]


def _add_pictures(app: FastAPI, status: Callable[[], Status], token: str) -> None:
    @app.get("/api/streams/{name}/picture.jpg", response_class=Response)
    def get_picture(name: str) -> Response:
        """What a stream showed last. 404: it runs nowhere, or has shown nothing yet."""
        told = status()
        host = next((stream.host for stream in told.streams if stream.name == name), "")
        where = next((one.http for one in told.hosts if one.name == host), "")
        if not where:
            return JSONResponse({"error": f"stream {name} runs nowhere"}, 404)
        request = urllib.request.Request(
            f"http://{where}/streams/{quote(name)}/picture.jpg", headers={"Authorization": f"Bearer {token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=_PICTURE_S) as answer:
                return Response(answer.read(), media_type="image/jpeg")
        except urllib.error.HTTPError as error:
            return JSONResponse({"error": f"stream {name} has shown no picture yet"}, 404 if error.code == 404 else 502)
        except OSError:
            return JSONResponse({"error": f"host {host} does not answer"}, 502)


def _add_bundles(app: FastAPI, bundles: BundleStore) -> None:
    @app.get("/bundles/{sha256}/{file:path}", response_class=FileResponse)
    def get_file(sha256: str, file: str) -> Response:
        """A file that the description of a bundle lists, or the description. 404: there is none."""
        folder = bundles.find(sha256) if sha256.isalnum() else None
        if folder is None or file not in (DESCRIPTION, *read_description(folder).files):
            return Response(status_code=404)
        return FileResponse(folder / file, media_type="application/octet-stream")


async def _told(_: Any, error: Exception) -> Response:
    return JSONResponse({"error": redact(str(error))}, 503)
