"""Alerts: Alertmanager's webhook, what fires now, and the history of both.

POST /alerts/webhook > the store, directly: the alert that Kafka is down could not come through Kafka
"""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from starlette.concurrency import run_in_threadpool

from processing.api.filters import TimeQuery, Where, only_rfc3339
from processing.api.paging import newest
from processing.api.values import Fields, Instant, OptionalText
from processing.store import Store
from shared.paging import Listing, Page
from shared.service import Problem, ProblemError

WATCHDOG: Final = "Watchdog"
WATCHDOG_S: Final = 180.0  # it is repeated every minute or so; the way is broken when it has not come for so long
BODY_MAX: Final = 8 * 1024 * 1024
ALERTS_MAX: Final = 500  # `max_alerts` of prometheus/alertmanager.yml
LABELS_MAX: Final = 100
TEXT_MAX: Final = 4_000  # characters of a label or an annotation; what is longer is cut, rather than lost

Status = Literal["firing", "resolved"]
Text = Annotated[str, AfterValidator(lambda text: text[:TEXT_MAX])]
Texts = Annotated[dict[str, Text], Field(max_length=LABELS_MAX)]


class _Incoming(BaseModel):
    """What Alertmanager sends; fields that we do not know are passed over."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


Told = Annotated[AwareDatetime, BeforeValidator(only_rfc3339)]


class Notified(_Incoming):
    """One alert of a notification."""

    status: Status
    labels: Texts
    annotations: Texts = Field(default_factory=dict)
    starts_at: Told = Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(2262, 1, 1, tzinfo=UTC))
    ends_at: Told | None = Field(None, lt=datetime(2262, 1, 1, tzinfo=UTC))
    fingerprint: str = Field(pattern=r"^[0-9a-f]{1,64}$", description="Alertmanager's hash of the labels.")


class Notification(_Incoming):
    """Alertmanager's webhook payload, version 4."""

    version: Literal["4"]
    alerts: list[Notified] = Field(max_length=ALERTS_MAX)


class Taken(BaseModel):
    """What became of a notification."""

    added: int = Field(description="Firings and resolutions that the history did not hold yet.")
    known: int = Field(description="Those that it held.")


class Alert(BaseModel):
    """A firing or a resolution."""

    alertname: str
    status: Status
    severity: str = Field(description="critical, warning or none.")
    service: OptionalText = Field(description="The service that it is about.")
    summary: str
    description: str
    starts_at: Instant = Field(description="When it began to fire.")
    ends_at: Instant | None = Field(description="When it was resolved; null for a firing.")
    stored_at: Instant = Field(description="When Alertmanager told of it.")
    labels: Fields
    annotations: Fields
    runbook_url: OptionalText
    dashboard_url: OptionalText
    fingerprint: str = Field(description="The same for every firing and resolution of the same labels.")


class AlertPage(Listing):
    """Alerts, the newest told first."""

    alerts: list[Alert]


class Firing(AlertPage):
    """What fires now."""

    watchdog: bool = Field(
        description="Whether the Watchdog, which always fires, has arrived within the last 3 minutes. "
        "If not, an empty list means nothing."
    )


class AlertQuery(TimeQuery, Page):
    """Filters and page of alerts; times are compared with when an alert began to fire."""

    alertname: str | None = Field(None, description="Only this alert.")
    severity: str | None = Field(None, description="Only alerts of this severity.")
    service: str | None = Field(None, description="Only alerts about this service.")

    def where(self, time: str = "starts_at") -> Where:
        where = super().where(time)
        for name in ("alertname", "severity", "service"):
            if (value := getattr(self, name)) is not None:
                where = where.and_(f"{name} = {{{name}:String}}", **{name: value})
        return where


class HistoryQuery(AlertQuery):
    """Likewise, of the history."""

    status: Status | None = Field(None, description="Only firings, or only resolutions.")

    def where(self, time: str = "starts_at") -> Where:
        where = super().where(time)
        return where if self.status is None else where.and_("status = {status:String}", status=self.status)


def take(store: Store, notification: Notification) -> Taken:
    """Put into the history what it does not hold yet: Alertmanager repeats itself, the history does not."""
    alerts = {(alert.fingerprint, _instant(alert.starts_at), alert.status): alert for alert in notification.alerts}
    rows = store.query(
        f"SELECT DISTINCT fingerprint, starts_at, status FROM {store.alerts} "  # noqa: S608 - our own name
        "WHERE fingerprint IN {fingerprints:Array(String)}",
        {"fingerprints": sorted({fingerprint for fingerprint, _, _ in alerts})},
    )
    known = {(row["fingerprint"], row["starts_at"], row["status"]) for row in rows}
    new = [_line(alert) for key, alert in alerts.items() if key not in known]
    # Two notifications of the same at the same time may both add it; then the table keeps one.
    store.add_alerts(new)
    return Taken(added=len(new), known=len(notification.alerts) - len(new))


def _line(alert: Notified) -> bytes:
    labels, annotations = alert.labels, alert.annotations
    resolved = alert.status == "resolved" and alert.ends_at is not None
    return msgspec.json.encode(
        {
            "fingerprint": alert.fingerprint,
            "status": alert.status,
            "alertname": labels.get("alertname", ""),
            "severity": labels.get("severity", ""),
            "service": labels.get("service", ""),
            "starts_at": _instant(alert.starts_at),
            "ends_at": _instant(alert.ends_at) if resolved and alert.ends_at else "",
            "summary": annotations.get("summary", ""),
            "description": annotations.get("description", ""),
            "runbook_url": annotations.get("runbook_url", ""),
            "dashboard_url": annotations.get("dashboard_url", ""),
            "labels": msgspec.json.encode(labels).decode(),
            "annotations": msgspec.json.encode(annotations).decode(),
        }
    )


def _instant(instant: datetime) -> str:
    """As the store answers it: RFC 3339 with nine digits. Python keeps six of them, which tell two firings apart."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


def history(store: Store, query: HistoryQuery) -> AlertPage:
    """A page of firings and resolutions, the newest told first."""
    found = newest(store, "alert history", f"{store.alerts} FINAL", query.where(), query)
    return AlertPage(total=found.total, alerts=_shown(found.rows), next_cursor=found.next_cursor)


class Watch:
    """When the Watchdog last came, as far as this process knows: after a start it has to come again."""

    def __init__(self) -> None:
        self._heard: float | None = None

    def look(self, notification: Notification) -> None:
        for alert in notification.alerts:
            if alert.labels.get("alertname") == WATCHDOG:
                self._heard = time.monotonic() if alert.status == "firing" else None

    def hears(self) -> bool:
        return self._heard is not None and time.monotonic() - self._heard < WATCHDOG_S


# The last word on each set of labels is by when it began, not by when it was told. What began before the newest
# Watchdog did is of an earlier Prometheus and Alertmanager, which ended together, and nobody is left to resolve it. The
# 10 s are two evaluations: not all groups of rules are evaluated for the first time at once.
_FIRING: Final = """(
  SELECT * FROM (SELECT * FROM {alerts} FINAL ORDER BY starts_at DESC, status DESC LIMIT 1 BY fingerprint)
  WHERE status = 'firing' AND alertname != '{watchdog}' AND starts_at >= (
    SELECT max(starts_at) - INTERVAL 10 SECOND FROM {alerts} WHERE alertname = '{watchdog}' AND status = 'firing'
  )
)"""


def firing(store: Store, query: AlertQuery, *, watchdog: bool) -> Firing:
    """A page of what fires now, by the history's last word on each set of labels."""
    source = _FIRING.format(alerts=store.alerts, watchdog=WATCHDOG)
    found = newest(store, "alerts", source, query.where(), query)
    return Firing(total=found.total, alerts=_shown(found.rows), next_cursor=found.next_cursor, watchdog=watchdog)


def _shown(rows: list[dict[str, Any]]) -> list[Alert]:
    return [Alert.model_validate(row) for row in rows]


async def _notification(request: Request) -> Notification:
    """The body, read up to its bound. Raises ProblemError (413, 422)."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > BODY_MAX:
            raise ProblemError(413, "Notification too large", f"a notification may have {BODY_MAX} bytes")
    try:
        return Notification.model_validate_json(bytes(body))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors()[:5])
        raise ProblemError(422, "Invalid request", wrong) from None


_WEBHOOK_BODY: Final[Mapping[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "description": "Alertmanager's webhook payload, version 4.",
                    "required": ["version", "alerts"],
                    "properties": {
                        "version": {"type": "string", "const": "4"},
                        "alerts": {
                            "type": "array",
                            "maxItems": ALERTS_MAX,
                            "items": {
                                "type": "object",
                                "required": ["status", "labels", "startsAt", "fingerprint"],
                                "properties": {
                                    "status": {"enum": ["firing", "resolved"]},
                                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                                    "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
                                    "startsAt": {"type": "string", "format": "date-time"},
                                    "endsAt": {"type": ["string", "null"], "format": "date-time"},
                                    "fingerprint": {"type": "string", "pattern": "^[0-9a-f]{1,64}$"},
                                },
                            },
                        },
                    },
                }
            }
        },
    }
}


def router(store: Store) -> APIRouter:
    """The routes, on this store."""
    routes = APIRouter(tags=["alerts"])
    watch = Watch()

    @routes.post(
        "/alerts/webhook",
        responses={413: {"model": Problem}, 422: {"model": Problem}, 503: {"model": Problem}},
        openapi_extra=dict(_WEBHOOK_BODY),
    )
    async def webhook(request: Request) -> Taken:
        """What Alertmanager tells. A notification may come again: each firing and each resolution is kept once."""
        notification = await _notification(request)
        taken = await run_in_threadpool(take, store, notification)
        watch.look(notification)
        return taken

    @routes.get("/alerts")
    def list_firing(query: Annotated[AlertQuery, Query()]) -> Firing:
        """What fires now."""
        return firing(store, query, watchdog=watch.hears())

    @routes.get("/alerts/history")
    def list_history(query: Annotated[HistoryQuery, Query()]) -> AlertPage:
        """Firings and resolutions, the newest told first."""
        return history(store, query)

    return routes
