"""Which tests need more than a moment of one process: `make check` leaves them out.

A folder or file under `tests`, or a test in one, and what it needs.
"""

TIERS = {
    "process": [
        "app/test_controlling.py",
        "app/test_live_run.py",
        "app/test_serving.py",
        "graph/test_bypass.py",
        "graph/test_control.py",
        "graph/test_cuda_ipc.py",
        "graph/test_hosts.py",
        "graph/test_nursery.py",
        "graph/test_scout.py",
        "graph/test_shared_link.py",
        "graph/test_shared_memory.py",
        "graph/test_shortage.py",
        "graph/test_stalls.py",
        "graph/test_supervisor.py",
    ],
    "device": [
        "obs",
        "stages/sinks/test_stream.py",
        "stages/sources/test_http.py",
        "stages/sources/test_push.py",
        "stages/sources/test_rtsp.py",
        "stages/sources/test_screen.py",
        "stages/sources/test_variants.py",
        "stages/sources/test_web.py",
        "vm",
    ],
    "browser": [
        "app/web/test_page.py",
        "stages/sinks/test_page_in_browser.py",
    ],
    "slow": [],
}


def tier_of(place: str) -> str | None:
    """The tier of a test by its place under `tests`, as in "graph/test_run.py::test_a"."""
    for tier, members in TIERS.items():
        for member in members:
            if place == member or place.startswith((f"{member}/", f"{member}::", f"{member}[")):
                return tier
    return None
