import pytest

from warpfuse.stages.sinks.camera_thread import choose

MS = 1_000_000
S = 1000 * MS


@pytest.mark.parametrize(
    ("on_fault", "styled", "raw", "shown"),
    [
        ("hold", 9.9, None, "styled"),
        ("hold", 5.0, 9.9, "held"),
        ("hold", None, 9.9, "held"),
        ("passthrough", 9.9, 9.9, "styled"),
        ("passthrough", 5.0, 9.9, "raw"),
        ("passthrough", None, 9.9, "raw"),
        ("passthrough", 5.0, 5.0, "held"),
        ("passthrough", None, None, "held"),
    ],
)
def test_what_is_shown(on_fault: str, styled: float | None, raw: float | None, shown: str) -> None:
    came = [None if seconds is None else int(seconds * S) for seconds in (styled, raw)]
    assert choose(on_fault, 40 * MS, 10 * S, *came) == shown  # type: ignore[arg-type]
