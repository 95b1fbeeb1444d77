"""What a visitor of the page can take as a source without writing an address: cameras, screens, files, and addresses
that were taken before."""

import asyncio
import json
import secrets
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from platformdirs import user_config_path

from warpfuse.doctor.cameras import cameras, to_dict
from warpfuse.engine.errors import WarpfuseError, one_line
from warpfuse.engine.files import write_whole
from warpfuse.engine.redact import redact
from warpfuse.graph.errors import ConfigError
from warpfuse.shipped_clip import CLIP
from warpfuse.stages.sources import connects, probe

_ENDINGS = (
    ".mp4", ".mov", ".mkv", ".webm", ".m4v", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv",
    ".3gp", ".gif", ".webp", ".apng",
)  # fmt: skip
_RECENT = 10
_MOST_LISTED = 500
_ROOM_LEFT = 1 << 30  # bytes of the disk that an upload leaves free
MOST_UPLOADED = 8 << 30  # bytes


class SourceLibrary:
    """The sources that a visitor can choose. Thread-safe as far as files are.

    uploads  folder of the files that visitors sent; they may be named wherever files may not
    """

    def __init__(self, uploads: Path, *, browsing: bool = True, recent: Path | None = None) -> None:
        """browsing: visitors may look at folders of this machine. recent: file of addresses; None: the user's own."""
        self.uploads = uploads
        self._browsing = browsing
        self._recent = recent or user_config_path("warpfuse") / "recent_sources.json"

    def choices(self) -> dict[str, Any]:
        """The sources by kind. Passwords in addresses are hidden."""
        sent = sorted(self.uploads.iterdir()) if self.uploads.is_dir() else []
        return {
            "clip": str(CLIP),
            "cameras": [
                {"name": camera["card"], "url": camera["usual"], "modes": camera["modes"]}
                for camera in to_dict(cameras())
                if camera["usual"] is not None
            ],
            "screens": _screens(),
            "uploads": [{"name": file.name, "url": str(file)} for file in sent if not file.name.startswith(".")],
            "recent": [redact(url) for url in self._addresses()],
            "browsing": self._browsing,
        }

    def folder(self, path: str) -> dict[str, Any]:
        """Folders and videos in a folder of this machine; "": the user's own. Raises ConfigError."""
        if not self._browsing:
            raise ConfigError("folders are shown on this machine alone, the page is open to others: upload a file")
        folder = Path(path).expanduser() if path else Path.home()
        try:
            found = sorted(folder.iterdir(), key=lambda one: one.name.lower())
            shown = [one for one in found if not one.name.startswith(".")]
            folders = [one.name for one in shown if one.is_dir()]
            files = [one.name for one in shown if one.suffix.lower() in _ENDINGS and one.is_file()]
        except OSError as error:
            raise ConfigError(f"{folder}: cannot be listed ({error.strerror}). Name another folder.") from None
        there = folder.resolve()
        return {
            "folder": str(there),
            "parent": str(there.parent),
            "folders": folders[:_MOST_LISTED],
            "files": files[:_MOST_LISTED],
        }

    async def upload(self, name: str, pieces: AsyncIterator[bytes]) -> str:
        """Save a video that a visitor sends. Returns its path. Raises ConfigError without room, or for no video."""
        file = self.uploads / _plain(name)
        part = file.with_name(f".{secrets.token_hex(8)}{file.suffix}")
        try:
            self.uploads.mkdir(parents=True, exist_ok=True)
            room = min(MOST_UPLOADED, shutil.disk_usage(self.uploads).free - _ROOM_LEFT)
            with part.open("xb") as written:
                async for piece in pieces:
                    room -= len(piece)
                    if room < 0:
                        raise ConfigError(f"{file.name}: there is no room for it on the disk of {self.uploads}")
                    written.write(piece)
            await asyncio.get_running_loop().run_in_executor(None, probe, str(part))
            part.replace(file)
        except OSError as error:
            raise ConfigError(f"{file.name}: cannot be kept in {self.uploads} ({error.strerror})") from None
        except WarpfuseError as error:
            raise ConfigError(one_line(error).replace(str(part), file.name)) from None
        finally:
            part.unlink(missing_ok=True)
        return str(file)

    def whole(self, keys: dict[str, Any]) -> dict[str, Any]:
        """The keys, with the hidden password of a listed source put back."""
        shown = {redact(url): url for url in self._addresses()}
        source = keys.get("source")
        return {**keys, "source": shown[source]} if isinstance(source, str) and source in shown else keys

    def took(self, source: str) -> None:
        """Remember an address on a network."""
        if not connects(source):
            return
        addresses = [source, *(url for url in self._addresses() if url != source)][:_RECENT]
        try:
            self._recent.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._recent, json.dumps(addresses).encode(), mode=0o600)  # passwords are in it
        except OSError:
            return  # a history that cannot be kept stops nobody

    def _addresses(self) -> list[str]:
        try:
            held = json.loads(self._recent.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return [url for url in held if isinstance(url, str)] if isinstance(held, list) else []


def _plain(name: str) -> str:
    """A file name without folders. Raises ConfigError."""
    if "/" in name or "\\" in name or name.startswith(".") or len(name.encode()) > 200:
        raise ConfigError(f"file name {name[:80]!r}: expected a name without folders that does not begin with a dot")
    if Path(name).suffix.lower() not in _ENDINGS:
        raise ConfigError(f"{name}: a video is expected: {', '.join(_ENDINGS)}")
    return name


def _screens() -> list[dict[str, str]]:
    try:
        import mss

        with mss.MSS() as screens:
            sizes = [(one["width"], one["height"]) for one in screens.monitors[1:]]
    except Exception:  # noqa: BLE001  (no display, or no right to see it: there are none to choose)
        return []
    return [
        {"name": f"Screen {number}, {width}x{height}", "url": f"screen:{number}"}
        for number, (width, height) in enumerate(sizes, 1)
    ]
