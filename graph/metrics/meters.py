"""Histograms of durations, counts of frames, and the figures of a run made of them."""

import weakref
from dataclasses import dataclass, field, fields, replace
from typing import Any

from hdrh.histogram import HdrHistogram

_HIGHEST_US = 3_600_000_000  # an hour
_DIGITS = 3
_OWN = (
    "frames", "fps", "seconds", "latency_ms", "age_ms", "control_ms", "first_picture_s", "drops", "dropped_share",
    "source", "restarts", "size", "steps",
)  # fmt: skip


class Meter:
    """A histogram of durations up to an hour: constant memory, percentiles to 0.1 %. One thread records."""

    def __init__(self) -> None:
        self._histogram = _loose(HdrHistogram(1, _HIGHEST_US, _DIGITS))
        self._longest_ns = 0

    def record(self, duration_ns: int) -> None:
        """Add one duration."""
        self._longest_ns = max(self._longest_ns, duration_ns)
        self._histogram.record_value(min(max(duration_ns // 1000, 1), _HIGHEST_US))

    def encode(self) -> str:
        """The histogram as text, to send to another process."""
        return f"{self._longest_ns}:{self._histogram.encode().decode('ascii')}"

    @classmethod
    def decode(cls, text: str) -> "Meter":
        """The meter that `encode` turned into this text."""
        longest, _, histogram = text.partition(":")
        meter = cls()
        meter._longest_ns = int(longest)
        meter._histogram = _loose(HdrHistogram.decode(histogram))
        return meter

    def __add__(self, other: "Meter") -> "Meter":
        """A new meter with the durations of both."""
        both = Meter()
        both._longest_ns = max(self._longest_ns, other._longest_ns)
        both._histogram.add(self._histogram)
        both._histogram.add(other._histogram)
        return both

    @property
    def count(self) -> int:
        """Number of durations recorded."""
        return int(self._histogram.get_total_count())

    def ms(self, percentile: float) -> float:
        """A percentile (0..100) in milliseconds; 0 when nothing was recorded."""
        if not self.count:
            return 0.0
        return round(float(self._histogram.get_value_at_percentile(percentile)) / 1000, 3)

    @property
    def max_ms(self) -> float:
        """The longest duration in milliseconds."""
        return round(self._longest_ns / 1e6, 3)


def _loose(histogram: HdrHistogram) -> HdrHistogram:
    """Break the reference cycle between a histogram and its encoder, so that it is freed with its last reference.

    With the cycle, some 80 KB of counts stay until the garbage collector runs. A supervisor decodes hundreds of
    histograms a minute, so its memory appeared to leak.
    """
    histogram.encoder.histogram = weakref.proxy(histogram)
    return histogram


@dataclass(frozen=True, slots=True)
class FrameCounts:
    """Frames read from the source, written to the sinks, dropped, repeated, and still under way between the two.

    in + repeated = out + dropped + under way, at every moment. After the end of a run, under way is 0.

    held       written frames for which no network ran
    predicted  the other written frames
    """

    into: int = 0
    out: int = 0
    dropped: int = 0
    repeated: int = 0
    held: int = 0
    under_way: int = 0

    def __add__(self, other: "FrameCounts") -> "FrameCounts":
        return FrameCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def predicted(self) -> int:
        """Written frames the networks ran for."""
        return self.out - self.held


@dataclass(frozen=True, slots=True, repr=False)
class Stats:
    """The figures of one run. `to_dict` is what `--stats FILE.json` holds.

    hops         by link: from the sender's hand-over until the reader takes the frame, waiting included. The bare link
                 that limits the frames in flight has none
    age          how old a picture had become when the next one replaced it
    control      from a change of settings to the first picture made with it being handed to the sink; the first picture
                 of a crossfade
    first_picture_s  seconds from the begin of the run, its networks not yet open, to its first picture; None: none yet
    drops        frames dropped, by reason: late (no stage had time for them), paused (read while the run was paused),
                 failed (a stage raised), restart (under way when a worker was lost)
    size         (width, height) of the pictures in the networks; shown: of those that are written
    source       figures of a live source: its states, reconnects, frames skipped and held; empty for a file
    source_lost  why the source is gone for good, if it is; the output until then is complete
    streams      in a run of several streams, the figures of each; all other figures are then sums over the streams
    networks     in a run of several streams, how often each network was called and for how many rows
    """

    frames: FrameCounts
    seconds: float
    latency: Meter
    age: Meter
    drops: dict[str, int]
    stages: dict[str, Meter]
    links: dict[str, dict[str, int]]
    hops: dict[str, Meter]
    backend: str
    precision: str
    device: str
    bundle: str
    size: tuple[int, int]
    shown: tuple[int, int]
    steps: int
    restarts: int = 0
    warnings: tuple[str, ...] = ()
    interrupted: bool = False
    source: dict[str, Any] = field(default_factory=dict)
    source_lost: str | None = None
    streams: dict[str, "Stats"] = field(default_factory=dict)
    networks: dict[str, dict[str, int]] = field(default_factory=dict)
    control: Meter = field(default_factory=Meter)
    first_picture_s: float | None = None

    def __repr__(self) -> str:
        """The main figures, in a line."""
        counts, latency = self.frames, self.latency
        return (
            f"Stats({counts.out} frames of {self.sizes} in {self.seconds:.1f} s, {self.fps:.1f} fps,"
            f" {counts.dropped} dropped; latency p50 {latency.ms(50):.0f} ms, p95 {latency.ms(95):.0f};"
            f" {self.bundle} on {self.device} by {self.backend})"
        )

    @property
    def sizes(self) -> str:
        """The size of the pictures that are written, and that of the networks where it differs."""
        (width, height), (wide, high) = self.shown, self.size
        return f"{width}x{height}" + (f" (networks at {wide}x{high})" if self.shown != self.size else "")

    @property
    def fps(self) -> float:
        """Frames written a second, from the first read to the last frame handed to a sink."""
        return self.frames.out / self.seconds if self.seconds > 0 else 0.0

    @property
    def dropped_share(self) -> float:
        """Share of the frames that were dropped, 0..1, without those that came in while the run was paused."""
        paused = self.drops["paused"]
        wanted = self.frames.into - paused
        return (self.frames.dropped - paused) / wanted if wanted > 0 else 0.0

    def under(self, name: str) -> "Stats":
        """The figures of one stream in the form in which streams are added: stages and links are named `NAME.stage`,
        and warnings and source are left to `streams`."""
        return replace(
            self,
            stages={f"{name}.{stage}": meter for stage, meter in self.stages.items()},
            links={f"{name}.{link}": figures for link, figures in self.links.items()},
            hops={f"{name}.{link}": hop for link, hop in self.hops.items()},
            warnings=(),
            interrupted=False,
            source={},
            source_lost=None,
            streams={name: self},
        )

    def sums(self) -> "Stats":
        """What a stream host keeps of one that has gone: counts and histograms of the whole way, without its parts."""
        alone: dict[str, Any] = {"stages": {}, "links": {}, "hops": {}, "streams": {}}
        return replace(self.under(""), **alone)

    def __add__(self, other: "Stats") -> "Stats":
        """The figures of streams that run side by side: counts are added, of times the longest is taken."""
        return replace(
            self,
            frames=self.frames + other.frames,
            seconds=max(self.seconds, other.seconds),
            latency=self.latency + other.latency,
            age=self.age + other.age,
            control=self.control + other.control,
            first_picture_s=max(filter(None, (self.first_picture_s, other.first_picture_s)), default=None),
            drops={why: count + other.drops[why] for why, count in self.drops.items()},
            stages=self.stages | other.stages,
            links=self.links | other.links,
            hops=self.hops | other.hops,
            steps=max(self.steps, other.steps),
            restarts=self.restarts + other.restarts,
            streams=self.streams | other.streams,
        )

    def stopped(self, early: bool) -> "Stats":
        """These figures with `interrupted` set."""
        return replace(self, interrupted=early)

    def _hop(self, link: str) -> dict[str, float]:
        hop = self.hops.get(link)
        return {} if hop is None else {"ms_p50": hop.ms(50), "ms_p99": hop.ms(99)}

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain types, ready for JSON."""
        latency = self.latency
        return {
            "frames": {
                "in": self.frames.into,
                "out": self.frames.out,
                "dropped": self.frames.dropped,
                "repeated": self.frames.repeated,
                "predicted": self.frames.predicted,
                "held": self.frames.held,
                "under_way": self.frames.under_way,
            },
            "fps": round(self.fps, 3),
            "seconds": round(self.seconds, 3),
            "latency_ms": {
                "p50": latency.ms(50),
                "p95": latency.ms(95),
                "p99": latency.ms(99),
                "max": latency.max_ms,
            },
            "age_ms": {"p50": self.age.ms(50), "p95": self.age.ms(95), "p99": self.age.ms(99), "max": self.age.max_ms},
            "control_ms": {"p50": self.control.ms(50), "p95": self.control.ms(95), "count": self.control.count},
            "first_picture_s": None if self.first_picture_s is None else round(self.first_picture_s, 3),
            "drops": self.drops,
            "dropped_share": round(self.dropped_share, 4),
            "stages": {
                name: {"ms_p50": meter.ms(50), "ms_p95": meter.ms(95), "count": meter.count}
                for name, meter in self.stages.items()
            },
            "links": {name: {**link, **self._hop(name)} for name, link in self.links.items()},
            **({"source": self.source} if self.source else {}),
            "restarts": self.restarts,
            "backend": self.backend,
            "precision": self.precision,
            "device": self.device,
            "bundle": self.bundle,
            "size": list(self.size),
            "steps": self.steps,
            **({"networks": self.networks, "streams": self._own_figures()} if self.streams else {}),
        }

    def _own_figures(self) -> dict[str, dict[str, Any]]:
        """Of each stream, the figures that are not the same for all streams."""
        figures = {name: stats.to_dict() for name, stats in self.streams.items()}
        return {name: {key: of_one[key] for key in _OWN if key in of_one} for name, of_one in figures.items()}
