"""Why an entry becomes a dead letter."""

from typing import Final

from shared.errors import Reason

_DETAIL: Final = 300  # characters


class Refused(Exception):  # noqa: N818 - named like what becomes of the entry
    """The entry becomes a dead letter, for this reason."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = cut(detail, _DETAIL)


def not_utf8(error: UnicodeDecodeError) -> Refused:
    """The refusal of bytes that are no text."""
    byte = error.object[error.start]
    return Refused(Reason.INVALID_UTF8, f"byte {error.start} (0x{byte:02x}) is not UTF-8; send the text as UTF-8")


def cut(text: str, length: int) -> str:
    """A text for people to see, of at most this length."""
    return text if len(text) <= length else text[: length - 3] + "..."
