"""Measuring the steadiness of a styled video, by pairs of frames of it and of its source."""

from collections.abc import Callable
from contextlib import closing

from warpfuse.stages.errors import SourceError
from warpfuse.stages.motion.consistency import Consistency, Figures
from warpfuse.stages.sources import open_source


def measure(
    source: str,
    styled: str,
    progress: Callable[[int, int | None], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
    frames: int | None = None,
    size: tuple[int, int] | None = None,
) -> Figures:
    """The figures of `Consistency`: e_warp, e_warp_source, tof, sharpness, hf_energy, pairs.

    source    URL of the video that was styled; it is cropped and scaled as a run does
    styled    URL of what came out
    progress  called after each pair of frames with how many were read and, if known, how many there are
    say       called with lines a user should read: one video is longer than the other, or damaged
    frames    stop after that many
    size      (width, height) px to measure at; None: the styled video's own

    Frames are paired in order, from the first; two are held of each. Videos of different lengths are measured to the
    end of the shorter one, and it is said. Raises SourceError: one cannot be opened, or has fewer than two frames.
    """
    with closing(open_source(styled, size=size, frames=frames)) as after:
        size = size or (after.info.width, after.info.height)
        with closing(open_source(source, size=size, frames=frames)) as before:
            known = [n for n in (before.info.frames, after.info.frames) if n is not None]
            total = min(known, default=None)
            consistency = Consistency()
            count = 0
            while True:
                original, result = before.read(), after.read()
                if original is None or result is None:
                    break
                consistency.add(original.rgb, result.rgb)
                count += 1
                if progress is not None:
                    progress(count, total)
            if count < 2:
                short = styled if result is None else source
                raise SourceError(f"{short}: steadiness takes two frames or more, got {count}. Give a longer video.")
            if original is not None or result is not None:
                longer, shorter = (source, styled) if result is None else (styled, source)
                say(f"frames: {longer} goes on after the {count} of {shorter}; measured to there")
            for warning in (before.warning, after.warning):
                if warning is not None:
                    say(warning)
    return consistency.figures()
