"""GET /records/{record_id}/raw: the original bytes of an entry, read back from Kafka."""

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from processing.api.originals import Location, Original, Originals, PayloadResponse, Plain
from shared.frames import entries
from shared.service import Problem, ProblemError


def router(originals: Originals) -> APIRouter:
    """The route, on originals of raw-logs."""
    routes = APIRouter(tags=["records"])

    @routes.get(
        "/records/{record_id}/raw",
        response_class=StreamingResponse,
        responses={
            200: {"content": {"application/octet-stream": {}}, "description": "The bytes as they were pushed."},
            **{code: {"model": Problem} for code in (404, 410, 503)},
        },
    )
    def raw(record_id: str) -> StreamingResponse:
        """The original bytes of an entry, as long as raw-logs retains them."""
        place = Location.parse(record_id)
        if place is None:
            raise ProblemError(
                404, "No such record", "a record_id is <8 hex digits>-<partition>-<offset>-<index>, as records carry it"
            )
        return _answer(originals.read(place), place)

    return routes


def _answer(original: Original, place: Location) -> StreamingResponse:
    if original.chunked:
        if place.index != 0:
            original.payload.release()
            raise ProblemError(404, "No such record", f"the message at offset {place.offset} is one entry, in chunks")
        return PayloadResponse(original.payload, original.content_type)
    lines = entries(original.payload.read(), original.content_type)
    if place.index >= len(lines):
        raise ProblemError(404, "No such record", f"the message at offset {place.offset} has {len(lines)} entries")
    return PayloadResponse(Plain(lines[place.index]), original.content_type)
