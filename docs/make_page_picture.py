"""Make docs/page.png: the control page while the clip of the package is restyled. Needs Chromium and playwright.

python docs/make_page_picture.py
"""

import os
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from warpfuse.shipped_clip import CLIP
from warpfuse.web.presets import Presets
from warpfuse.web.security import AccessRules
from warpfuse.web.server import WebServer, application
from warpfuse.web.session import PageSession
from warpfuse.web.source_library import SourceLibrary

OUT = Path(__file__).resolve().parent / "page.png"
SIZE = (1360, 850)
SETTLED = 80  # pictures that were shown
COLOURS = 256  # of the file: it is to stay small


def photograph(page: Page, session: PageSession) -> None:
    """The page, once there are figures to show."""
    page.locator("#blank").wait_for(state="hidden")
    page.get_by_label("Side by side").check(force=True)
    while session.stats().get("frames", {"out": SETTLED})["out"] < SETTLED:
        page.wait_for_timeout(200)
    page.screenshot(path=str(OUT))


def main() -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as folder:
        presets = Presets(Path(folder) / "presets")
        presets.save("Night", "prompt: neon\n")
        os.chdir(CLIP.parent)  # the page shows the path as it is given
        keys = {"source": CLIP.name, "size": "512x288", "prompt": "ukiyoe:3, ink:1", "loop": True}
        session = PageSession(keys, record_to=Path(folder))
        access = AccessRules()
        library = SourceLibrary(Path(folder) / "uploads", recent=Path(folder) / "recent.json")
        with (
            WebServer(application(session, presets, access, library), access, 0) as server,
            sync_playwright() as driver,
        ):
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]}, color_scheme="dark")
            page.goto(server.url)
            session.start()
            photograph(page, session)
            browser.close()
            session.close()
    shrink()


def shrink() -> None:
    """Fewer colours: a third of the bytes."""
    from PIL import Image

    with Image.open(OUT) as picture:
        small = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.FLOYDSTEINBERG)
    small.save(OUT, optimize=True)


if __name__ == "__main__":
    main()
