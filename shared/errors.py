"""Errors and the bounded vocabulary of reasons that dead letters, metrics and answers use."""

from enum import StrEnum


class SluiceError(Exception):
    """Base of every error that Sluice raises on purpose; its message names what was wrong and what to do."""


class ConfigurationError(SluiceError):
    """A setting or a folder is not usable; stops start-up."""


class DeclarationError(ConfigurationError):
    """A file that people write is not usable: which, at which line, and what to do."""

    def __init__(self, file: str, line: int, message: str) -> None:
        super().__init__(f"{file}, line {line}: {message}")
        self.file = file
        self.line = line


class StoreError(SluiceError):
    """The analytics store refused or failed; the sink retries, the API answers 503."""


class StateError(SluiceError):
    """A state topic holds what this version can't take back, such as what a newer one wrote; the service stops."""


class KafkaUnavailableError(SluiceError):
    """Kafka did not answer within the deadline; the caller may try again."""


class FencedError(SluiceError):
    """Another process took over this one's transactional id, or the client is beyond repair: it has to be replaced."""


class TooMuchPoisonError(SluiceError):
    """So many entries would become dead letters that the stage takes no more, until somebody has looked."""


class SpoolFullError(SluiceError):
    """The spool's quota or its disk is used up; the caller may try again when others have released theirs."""


class Reason(StrEnum):
    """Why an entry became a dead letter. Bounded, for it is a metric label."""

    MALFORMED_JSON = "malformed_json"  # not one JSON value
    INVALID_UTF8 = "invalid_utf8"
    NUMBER_OUT_OF_RANGE = "number_out_of_range"  # NaN, Infinity, 1e999
    NESTED_TOO_DEEPLY = "nested_too_deeply"
    NOT_AN_OBJECT = "not_an_object"  # valid JSON, but no object
    DUPLICATE_KEY = "duplicate_key"  # one object names a key twice
    INVALID_FIELD = "invalid_field"  # a known field holds what cannot be read as that field
    INVALID_HEADER = "invalid_header"  # a sluice- header that lies
    INVALID_RECORD = "invalid_record"  # a foreign message on a topic that carries records
    CHUNK_INVALID_HEADER = "chunk_invalid_header"  # truncated, repeated, impossible numbers
    CHUNK_UNKNOWN_VERSION = "chunk_unknown_version"
    CHUNK_CRC_MISMATCH = "chunk_crc_mismatch"
    CHUNK_DIGEST_MISMATCH = "chunk_digest_mismatch"
    CHUNK_MISSING = "chunk_missing"  # an index was skipped, or the first chunk never came
    CHUNK_CONFLICT = "chunk_conflict"  # the same index with other bytes, or totals that disagree
    CHUNK_EXPIRED = "chunk_expired"  # the rest never came
    CHUNK_TOO_LARGE = "chunk_too_large"  # over the maximum message size
