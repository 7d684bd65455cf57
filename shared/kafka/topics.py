"""What the cluster knows of our topics: their ids, partitions and offsets; and making them."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, Final, TypeVar

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewPartitions, NewTopic

from shared.config import Settings
from shared.errors import ConfigurationError, KafkaUnavailableError
from shared.kafka.client import Place, cause_of, common
from shared.topics import CHAIN, specs

T = TypeVar("T")

_SOON: Final = {  # a broker that was asked a moment too early
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError._NOENT,  # noqa: SLF001 - the client's own code where it found no leader of any of the partitions
}

_NO_CONTROLLER: Final = {  # a broker that does not know yet, or no more, who decides on topics
    KafkaError.NOT_CONTROLLER,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError._TIMED_OUT,  # noqa: SLF001 - librdkafka's local codes have no public names
    KafkaError._TRANSPORT,  # noqa: SLF001 - likewise
}


class Topics:
    """What the cluster knows of our topics."""

    def __init__(self, settings: Settings, client: str) -> None:
        self._settings = settings
        self._client = f"{client}-admin"
        self._admin = AdminClient(common(settings, self._client))
        self._onlookers: dict[str, Consumer] = {}

    def ids(self, names: Sequence[str], patience: float = 10.0) -> dict[str, str]:
        """The first 8 hex digits of each topic's id. Raises KafkaUnavailableError after so many seconds."""
        described = self._describe(names, patience)
        return {
            name: f"{described[name].topic_id.get_most_significant_bits() >> 32 & 0xFFFFFFFF:08x}" for name in names
        }

    def partitions(self, names: Sequence[str], patience: float = 10.0) -> dict[str, int]:
        """How many partitions each topic has."""
        described = self._describe(names, patience)
        return {name: len(described[name].partitions) for name in names}

    def refuse_compacted(self, names: Sequence[str], patience: float = 10.0) -> None:
        """Raises ConfigurationError where one of these topics is compacted.

        All chunks of a message have its key, so compaction would leave the last of them alone.
        """
        asked = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        found = _answers(
            lambda: self._admin.describe_configs(asked, request_timeout=patience), "describe configs", patience
        )
        for topic, config in found.items():
            policy = config["cleanup.policy"].value
            if "compact" in policy:
                raise ConfigurationError(
                    f"topic {topic.name} has cleanup.policy={policy}, which removes all but the last chunk of a large "
                    "message, and all but the last entry of a key; set it to delete: kafka-configs.sh --alter "
                    f"--entity-type topics --entity-name {topic.name} --add-config cleanup.policy=delete"
                )

    def ends(self, places: Sequence[Place], patience: float = 10.0, *, stable: bool = False) -> dict[Place, int]:
        """The end offset of each partition: open transactions included, or `stable`, what a reader gets up to."""
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # the client left it untyped
        return self._offsets(places, latest, patience, stable=stable)

    def starts(self, places: Sequence[Place], patience: float = 10.0) -> dict[Place, int]:
        """The first offset that each partition still holds."""
        return self._offsets(places, OffsetSpec.earliest(), patience)  # type: ignore[no-untyped-call]  # likewise

    def committed(self, group: str, places: Sequence[Place], patience: float) -> dict[Place, int]:
        """What a group, by our name of it, has committed of these, whether anybody is in it or not.

        Waits for no transaction. A consumer that never joins asks: the admin client's own call for it ends the process
        by an assertion of librdkafka 2.16 when it is under way while all brokers of a cluster die and come back.
        """
        if group not in self._onlookers:
            config = {"group.id": self._settings.topic(group), "isolation.level": "read_uncommitted"}
            self._onlookers[group] = Consumer(common(self._settings, f"{self._client}-{group}") | config)
        asked = [TopicPartition(*place) for place in places]
        found = _patiently(
            lambda: self._onlookers[group].committed(asked, patience), f"offsets of group {group}", patience
        )
        return {(tp.topic, tp.partition): tp.offset for tp in found if tp.offset >= 0}

    def times(self, places: Sequence[Place], patience: float = 10.0) -> dict[Place, tuple[int, int]]:
        """When the first and the newest message that a partition holds were written, ms since 1970; none if empty."""
        first = self._listed(places, OffsetSpec.for_timestamp(0), patience)
        newest = self._listed(places, OffsetSpec.max_timestamp(), patience)  # type: ignore[no-untyped-call]  # likewise
        return {
            place: (first[place].timestamp, newest[place].timestamp)
            for place in places
            if first[place].timestamp >= 0 and newest[place].timestamp >= 0
        }

    def assigned(self, groups: Sequence[str], patience: float = 10.0) -> dict[str, dict[str, int]]:
        """Of each group, by our name of it: how many members have partitions of which topic.

        Who assigns itself partitions is no member; a group that nobody has joined yet is not there, or empty.
        """
        names = {self._settings.topic(group): group for group in groups}
        described = _answers(
            lambda: self._admin.describe_consumer_groups(list(names), request_timeout=patience),
            "describe groups",
            patience,
        )
        return {
            names[name]: Counter(
                topic
                for member in group.members
                for topic in {place.topic for place in member.assignment.topic_partitions}
            )
            for name, group in described.items()
        }

    def brokers(self, patience: float = 10.0) -> list[tuple[str, int]]:
        """Host and port of every broker."""
        described = _answers(
            lambda: {"": self._admin.describe_cluster(request_timeout=patience)}, "describe the cluster", patience
        )
        return [(node.host, node.port) for node in described[""].nodes]

    def members(self, group: str, patience: float = 10.0) -> int:
        """How many consumers a group, by our name of it, has now."""
        name = self._settings.topic(group)
        found = _answers(
            lambda: self._admin.describe_consumer_groups([name], request_timeout=patience), f"group {name}", patience
        )
        return len(found[name].members)

    def grow(self, counts: Mapping[str, int], patience: float = 30.0) -> None:
        """Give each topic, by its name in Kafka, so many partitions, and wait until all have a leader."""
        found = self.partitions(list(counts))
        asked = [NewPartitions(name, count) for name, count in counts.items() if found[name] < count]
        if asked:
            _answers(
                lambda: self._admin.create_partitions(asked, request_timeout=patience), "create partitions", patience
            )
            self._admin = AdminClient(common(self._settings, self._client))  # what the other remembers has grown old
        self.ends([(name, partition) for name, count in counts.items() for partition in range(count)], patience)

    def create(self, patience: float = 30.0) -> list[str]:
        """Create the topics that are missing, with explicit settings; returns the names of those created.

        A broker that has just started answers before it knows its controller: so it is asked again for a while.
        """
        wanted = {
            name: NewTopic(
                name,
                num_partitions=spec.partitions,
                replication_factor=self._settings.replication_factor,
                config=spec.config,
            )
            for spec in specs(self._settings.partitions, self._settings.retention_hours)
            for name in [self._settings.topic(spec.name)]
        }
        made: list[str] = []

        def make() -> None:
            refused: KafkaException | None = None
            for name, future in self._admin.create_topics(list(wanted.values()), request_timeout=5.0).items():
                try:
                    future.result()
                    made.append(name)
                except KafkaException as error:
                    if cause_of(error).code() != KafkaError.TOPIC_ALREADY_EXISTS:
                        refused = error
                        continue
                del wanted[name]
            if refused is not None:
                raise refused

        _patiently(make, "create topics", patience, _SOON | _NO_CONTROLLER)
        return made

    def check(self, patience: float = 10.0) -> None:
        """Raise ConfigurationError unless every topic of the chain has PARTITIONS partitions: which partition the
        state of a key lies on depends on their number."""
        wanted = self._settings.partitions
        found = self.partitions([self._settings.topic(name) for name in CHAIN], patience)
        others = {name: count for name, count in found.items() if count != wanted}
        if others:
            raise ConfigurationError(
                f"PARTITIONS is {wanted}, but {', '.join(f'{name} has {count}' for name, count in others.items())}: "
                "set it to what they have, or grow them by the procedure of docs/partitions.md "
                "(make grow; or python -m shared.partitions, all services stopped); what was cut off is run again"
            )

    def delete(self, names: Sequence[str]) -> None:
        """Delete these topics, by our names of them."""
        for future in self._admin.delete_topics(
            [self._settings.topic(name) for name in names], request_timeout=30.0
        ).values():
            future.result()

    def reachable(self, timeout: float) -> bool:
        """Whether a broker answers within this many seconds."""
        try:
            self._admin.list_topics(self._settings.topic(specs(1, 1)[0].name), timeout=timeout)
        except KafkaException:
            return False
        return True

    def _describe(self, names: Sequence[str], patience: float) -> dict[str, Any]:
        asked = TopicCollection(list(names))
        return _answers(
            lambda: self._admin.describe_topics(asked, request_timeout=patience), "describe topics", patience
        )

    def _offsets(
        self, places: Sequence[Place], which: OffsetSpec, patience: float, *, stable: bool = False
    ) -> dict[Place, int]:
        return {place: info.offset for place, info in self._listed(places, which, patience, stable=stable).items()}

    def _listed(
        self, places: Sequence[Place], which: OffsetSpec, patience: float, *, stable: bool = False
    ) -> dict[Place, Any]:
        if not places:
            return {}
        asked = {TopicPartition(topic, partition): which for topic, partition in places}
        level = IsolationLevel.READ_COMMITTED if stable else IsolationLevel.READ_UNCOMMITTED
        found = _answers(
            lambda: self._admin.list_offsets(asked, isolation_level=level, request_timeout=patience),
            "list offsets",
            patience,
        )
        return {(tp.topic, tp.partition): info for tp, info in found.items()}


def _answers(ask: Callable[[], Mapping[Any, Any]], what: str, patience: float) -> dict[Any, Any]:
    """The results of an admin call."""
    return _patiently(lambda: {key: future.result() for key, future in ask().items()}, what, patience)


def _patiently(ask: Callable[[], T], what: str, patience: float, soon: Set[int] = _SOON) -> T:
    """What a call answers, asked again while a broker says, by one of these codes, that it will know soon."""
    until = time.monotonic() + patience
    while True:
        try:
            return ask()
        except KafkaException as error:
            cause = cause_of(error)
            if cause.code() not in soon or time.monotonic() > until:
                raise KafkaUnavailableError(f"{what}: {cause.str()}") from error
            time.sleep(0.05)
