"""How the store's values are shown."""

from typing import Annotated, Any

import msgspec
from pydantic import BeforeValidator

from shared.records import Scalar


def _shortest(text: str) -> str:
    """RFC 3339 with the fewest of 0, 3, 6 or 9 digits of fraction; the store answers with all nine."""
    instant = text.removesuffix("Z")
    while "." in instant and instant.endswith("000"):
        instant = instant[:-3]
    return instant.removesuffix(".") + "Z"


def _object(text: str) -> dict[str, Any]:
    """The JSON object in a column of text, which is empty when there is none."""
    try:
        found = msgspec.json.decode(text or b"{}")
    except msgspec.DecodeError:
        found = None
    # only a foreign producer's line holds anything else: shown as it is, rather than failing the whole answer
    return found if isinstance(found, dict) else {"unreadable": text}


Instant = Annotated[str, BeforeValidator(_shortest)]
"""RFC 3339, UTC."""

OptionalText = Annotated[str | None, BeforeValidator(lambda text: text or None)]
"""Text that is null where there is none; the store holds it empty."""

Fields = Annotated[dict[str, Scalar], BeforeValidator(_object)]
"""Names and scalars."""
