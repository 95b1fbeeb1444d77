"""The figures that the page shows of a stream, as plain types."""

from typing import Any

from warpfuse.graph.control.run import Run
from warpfuse.graph.metrics.meters import Stats
from warpfuse.graph.plan.config import GraphConfig
from warpfuse.stages.interim import Interim
from warpfuse.web.figures import Moment
from warpfuse.web.pictures import VIEWS
from warpfuse.web.viewing import ViewerSink


def _views(run: Run, config: GraphConfig) -> list[str]:
    """Views that the page can show. A run in several processes gives it the styled pictures only."""
    if len(run.workers()) > 1:
        return ["styled"]
    there = {"control": bool(config.controls), "mask": config.mask.active}
    return [view for view in VIEWS if there.get(view, True)]


def stream_figures(run: Run, sink: ViewerSink | None, config: GraphConfig) -> dict[str, Any]:
    """Figures of a stream under way. Frame rate and latency are those of the last two seconds."""
    so_far, moment = run.stats(), sink.moment() if sink is not None else Moment()
    recorder = sink.recorder if sink is not None else None
    recording = None
    if recorder is not None:
        error = str(recorder.error) if recorder.error else None
        counts = {"frames": recorder.frames, "dropped": recorder.dropped}
        recording = {"file": recorder.file, **counts, "error": error}
    return {
        "fps": moment.fps,
        "latency_ms": {"p50": moment.p50, "p95": moment.p95, "newest": moment.newest},
        "frames": {"in": so_far.frames.into, "out": sink.frames if sink is not None else so_far.frames.out},
        **_waits(so_far),
        "dropped": {reason: count for reason, count in so_far.drops.items() if count},
        "stages": {name: {"ms_p50": m.ms(50), "ms_p95": m.ms(95)} for name, m in so_far.stages.items()},
        "backend": so_far.backend,
        "precision": so_far.precision,
        "device": so_far.device,
        "bundle": so_far.bundle,
        "size": list(so_far.size),
        "views": _views(run, config),
        "paused": run.paused,
        "recording": recording,
        "cue": _cue(config, sink.interim if sink is not None else None),
    }


def _cue(config: GraphConfig, interim: Interim | None) -> dict[str, Any] | None:
    """The cue of the picture on show: number from 1, number of cues, name or keys, and keys set by hand over it."""
    cues = config.schedule.cues
    if interim is None or interim.cue is None or interim.cue >= len(cues):  # shown still, of a schedule before
        return None
    cue = cues[interim.cue]
    name = cue if isinstance(cue, str) else ", ".join(str(cue[key]) if key == "look" else key for key in cue)
    return {"number": interim.cue + 1, "of": len(cues), "name": name, "by_hand": list(interim.by_hand)}


def _waits(stats: Stats) -> dict[str, Any]:
    """Delay of controls, time to the first picture, and share of dropped frames, over the whole run."""
    told = stats.to_dict()
    return {key: told[key] for key in ("control_ms", "first_picture_s", "dropped_share")}


def whole_figures(stats: Stats) -> dict[str, Any]:
    """Frame rate and latency of a run that is over, over its whole length."""
    latency = {"p50": stats.latency.ms(50), "p95": stats.latency.ms(95), "newest": stats.latency.ms(50)}
    return {"fps": round(stats.fps, 2), "latency_ms": latency, "paused": False, "recording": None}
