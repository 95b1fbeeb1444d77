"""A Prometheus exporter of a run's figures, on http://127.0.0.1:PORT/metrics."""

import contextlib
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from warpfuse.graph.errors import ConfigError
from warpfuse.graph.metrics.meters import Meter, Stats

_QUANTILES = (0.5, 0.95, 0.99)


class RunCollector(Collector):
    """Collects a run's figures at every scrape. One exporter covers all workers."""

    def __init__(self, stats: Callable[[], Stats]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """Every figure of the run."""
        stats = self._stats()
        frames = CounterMetricFamily("warpfuse_frames", "Frames by what became of them", labels=["what"])
        counted = {"in": stats.frames.into, "out": stats.frames.out, "repeated": stats.frames.repeated}
        for what, count in {**counted, "held": stats.frames.held}.items():
            frames.add_metric([what], count)
        yield frames
        drops = CounterMetricFamily("warpfuse_dropped", "Frames dropped, by reason", labels=["why"])
        for why, count in stats.drops.items():
            drops.add_metric([why], count)
        yield drops
        yield CounterMetricFamily("warpfuse_restarts", "Workers started again", value=stats.restarts)
        yield _quantiles("warpfuse_latency_ms", "Arrival at the source to hand-over to the sink", {"": stats.latency})
        yield _quantiles("warpfuse_age_ms", "Age of what was shown when something else took its place", {"": stats.age})
        yield _quantiles("warpfuse_control_ms", "Change of settings to its first picture", {"": stats.control})
        if stats.first_picture_s is not None:
            about = "Begin of the run to its first picture"
            yield GaugeMetricFamily("warpfuse_first_picture_seconds", about, value=stats.first_picture_s)
        yield GaugeMetricFamily("warpfuse_dropped_share", "Dropped of all frames wanted", value=stats.dropped_share)
        yield _quantiles("warpfuse_stage_ms", "Time in a stage, without waiting", stats.stages, "stage")
        calls = CounterMetricFamily("warpfuse_stage_calls", "Calls of a stage", labels=["stage"])
        for name, meter in stats.stages.items():
            calls.add_metric([name], meter.count)
        yield calls
        yield _quantiles("warpfuse_hop_ms", "Hand-over to taking on a link, waiting included", stats.hops, "link")
        sent = CounterMetricFamily("warpfuse_link_sent", "Frames sent on a link", labels=["link"])
        peak = GaugeMetricFamily("warpfuse_link_peak_slots", "Most slots of a link in use at once", labels=["link"])
        for name, link in stats.links.items():
            sent.add_metric([name], link["sent"])
            peak.add_metric([name], link["peak"])
        yield sent
        yield peak


@contextlib.contextmanager
def serving(stats: Callable[[], Stats], port: int | None) -> Iterator[None]:
    """Within the block, answer scrapes on the loopback interface; without a port, do nothing.

    Raises ConfigError when the port cannot be bound.
    """
    if port is None:
        yield
        return
    registry = CollectorRegistry()
    registry.register(RunCollector(stats))
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise ConfigError(f"--metrics {port}: {error.strerror or error}. Give another port") from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _quantiles(name: str, about: str, meters: dict[str, Meter], label: str = "") -> GaugeMetricFamily:
    labels = [label, "quantile"] if label else ["quantile"]
    family = GaugeMetricFamily(name, about, labels=labels)
    for who, meter in meters.items():
        for quantile in _QUANTILES:
            family.add_metric([*([who] if label else []), f"{quantile:g}"], meter.ms(quantile * 100))
    return family
