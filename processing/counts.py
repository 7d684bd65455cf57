"""`log_entries_by_source_total`: exact, because it is asked of the store at every scrape."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from shared import logs
from shared.errors import StoreError
from shared.records import status_of

OTHER = "other"

log = logs.logger("counts")


class EntriesBySource(Collector):
    """Each entry in the store, once, by source and status. Sources beyond the limit share the label `other`."""

    def __init__(self, counts: Callable[[], Mapping[tuple[str, str], int]], limit: int) -> None:
        """`counts` tells the entries of each (source, outcome), the sources in the order of their first entry."""
        self._counts = counts
        self._limit = limit

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(
            "log_entries_by_source", "Entries in the store, by source and status.", labels=["source", "status"]
        )
        try:
            counts = self._counts()
        except StoreError as error:
            log.warning("no counts for this scrape", error=str(error))
            return
        kept = set(list(dict.fromkeys(source for source, _ in counts))[: self._limit])
        totals: Counter[tuple[str, str]] = Counter()
        for (source, outcome), count in counts.items():
            totals[source if source in kept else OTHER, status_of(outcome)] += count
        for (source, status), count in totals.items():
            family.add_metric([source, status], count)
        yield family

    def describe(self) -> Iterator[CounterMetricFamily]:
        """Known without asking the store, so that registering needs none."""
        yield CounterMetricFamily("log_entries_by_source", "", labels=["source", "status"])

    def register(self, registry: CollectorRegistry) -> None:
        registry.register(self)
