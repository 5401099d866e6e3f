"""The numbers for machines that watch, in the text that Prometheus reads.

However often it is asked, it takes at most a twentieth of one core: an answer is given again for
twenty times as long as it took.
"""

import threading
import time
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from cubeopt import __version__, provenance
from cubeopt.db import census
from cubeopt.db.engine import Engine
from cubeopt.report import gauges
from cubeopt.report.gauges import Family

_REST = 20  # times what an answer took


class Exposition:
    """Answers scrapes of one storage; threads may share it."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine, self._clock = engine, clock
        self._guard = threading.Lock()
        self._families: list[Family] = []
        self._stale = float("-inf")
        self._build = {"version": __version__, "code": provenance.code_version()}

    def families(self) -> list[Family]:
        """The numbers as rows; StorageError when the storage does not answer."""
        with self._guard:  # who asks meanwhile has the same answer
            begun = self._clock()
            if begun >= self._stale:
                self._families = gauges.families(census.take(self._engine), self._build)
                ended = self._clock()
                self._stale = ended + _REST * (ended - begun)
            return self._families

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """The text and its content type: OpenMetrics where the Accept header *accept* asks for it,
        else Prometheus' own form.
        """
        registry = CollectorRegistry()
        registry.register(_Families(self.families()))
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type


class _Families(Collector):
    """What a registry collects from."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return map(_metric, self._families)


def _metric(family: Family) -> Metric:
    if family.histogram is not None:
        buckets = [(bound, float(count)) for bound, count in family.histogram.buckets.items()]
        return HistogramMetricFamily(family.name, family.help, buckets, family.histogram.sum)
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    names = list(family.samples[0].labels) if family.samples else []
    metric = kind(family.name, family.help, labels=names)
    for sample in family.samples:
        metric.add_metric([sample.labels[name] for name in names], sample.value)
    return metric
