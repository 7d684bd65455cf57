"""From messages of standardized-logs to measured records, windows and anomalies: between the stage loop and the core.

message -> frame -> lines of one partition -> process -> processed-metrics (record, anomaly; window at the commit)
"""

from collections.abc import Iterable, Sequence

import msgspec

from processing.detect import Rules
from processing.process import Processor, Rejected
from processing.rows import identity_of
from shared.config import Settings
from shared.frames import entries
from shared.records import DeadLetter, Kind
from shared.stage import Message, Output
from shared.topics import H_CONTENT_TYPE, H_KIND, PROCESSED_METRICS, STANDARDIZED_LOGS

STAGE = "processing"


class _Streams:
    """A stream of processed-metrics for each kind; a frame holds one kind, so that the sink need not look inside."""

    def __init__(self, out: Output) -> None:
        # in the order in which their last frames are sent
        self.anomalies, self.windows, self.records, self.samples = (
            out.stream(PROCESSED_METRICS, [(H_KIND, kind.encode())])
            for kind in (Kind.ANOMALY, Kind.WINDOW, Kind.RECORD, Kind.SAMPLE)
        )


class Processing:
    """The transform of the processing stage. A partition's output stays on the partition of its series."""

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.topic(STANDARDIZED_LOGS)
        self._processor = Processor(Rules.of(settings))
        self._out: Output | None = None
        self._streams: _Streams | None = None

    def handle(self, messages: Sequence[Message], topic_id: str, out: Output) -> int:
        streams = self._streams_of(out)
        together: dict[int, list[tuple[Message, list[bytes]]]] = {}
        samples = 0
        for message in messages:
            value = message.value if message.payload is None else message.payload.read()
            lines = entries(value, _header(message, H_CONTENT_TYPE))
            if _header(message, H_KIND) == Kind.SAMPLE:  # as they are: what each means is known without history
                streams.samples.add_to(message.partition, message.key, lines)
                samples += len(lines)
                continue
            together.setdefault(message.partition, []).append((message, lines))
        done = [
            (partition, parts, _key(parts), self._processor.process(partition, [n for _, some in parts for n in some]))
            for partition, parts in together.items()
        ]
        for partition, _, key, made in done:
            streams.anomalies.add_to(partition, key, made.anomalies)
        streams.anomalies.flush()  # before their records, so that nobody sees a record without its anomalies
        for partition, parts, key, made in done:
            streams.records.add_to(partition, key, made.records)
            for bad in made.rejected:
                self._dead(parts, bad, topic_id, out)
        return samples + sum(len(lines) for parts in together.values() for _, lines in parts)

    def finish(self, out: Output) -> None:
        streams = self._streams_of(out)
        for partition, line in self._processor.windows():
            streams.windows.add_to(partition, None, [line])

    def changed(self) -> Iterable[tuple[int, bytes, bytes | None]]:
        return self._processor.changed()

    def restore(self, partition: int, key: bytes, value: bytes) -> None:
        self._processor.restore(partition, key, value)

    def forget(self, partition: int) -> None:
        self._processor.forget(partition)

    def _streams_of(self, out: Output) -> _Streams:
        if self._streams is None or out is not self._out:
            self._out, self._streams = out, _Streams(out)
        return self._streams

    def _dead(self, parts: Sequence[tuple[Message, list[bytes]]], bad: Rejected, topic_id: str, out: Output) -> None:
        """A line here is a foreign producer's, or that of another version: it may say which entry it was made of."""
        index = bad.index
        message = parts[0][0]
        for message, lines in parts:  # noqa: B007 - the one at which it stops is wanted
            if index < len(lines):
                break
            index -= len(lines)
        place = f"{topic_id}-{message.partition}-{message.offset}-{index}"
        letter = DeadLetter.of(
            message, place, stage=STAGE, topic=self._topic, reason=bad.reason, detail=bad.detail, value=bad.value
        )
        known = identity_of(bad.value)
        out.dead_letter(
            msgspec.structs.replace(
                letter, record_id=known.record_id or place, run_id=known.run_id, origin=known.origin
            )
        )


def _key(parts: Sequence[tuple[Message, list[bytes]]]) -> bytes | None:
    """The key of these messages, None where they differ."""
    keys = {message.key for message, _ in parts}
    return keys.pop() if len(keys) == 1 else None


def _header(message: Message, wanted: str) -> str | None:
    for name, value in message.headers:
        if name == wanted and value is not None:
            return value.decode(errors="replace")
    return None
