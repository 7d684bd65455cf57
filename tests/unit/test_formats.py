"""Lines as real programs write them, and what is left of them when they are malformed."""

import json
from typing import Any

import pytest

from standardization.standardize import Arrival, Standardizer
from tests.standardizing import standardized

ARRIVAL = Arrival("2026-03-17T09:00:00Z", source="web-1")
IIS = (
    'application/x-w3c-extended-log; columns="date time s-ip cs-method cs-uri-stem cs-uri-query s-port cs-username '
    'c-ip cs(User-Agent) sc-status sc-substatus sc-win32-status time-taken"'
)


def record(text: str, content_type: str | None = None) -> dict[str, Any]:
    good, rejected = standardized(Standardizer(1 << 24, 1 << 21), [text.encode()], ARRIVAL, content_type)
    assert rejected == []
    found: dict[str, Any] = json.loads(good[0][1])
    return found


def test_syslog_of_rfc_5424() -> None:
    found = record(
        "<165>1 2026-01-11T22:14:15.003+01:00 mymachine.example.com evntslog 111 ID47 "
        '[exampleSDID@32473 iut="3" eventSource="Appli\\"cation"][examplePriority@32473 class="high"] '
        "\ufeffAn application event"
    )
    assert found["timestamp"] == "2026-01-11T21:14:15.003Z"
    assert (found["service_name"], found["event_name"]) == ("evntslog", "ID47")
    assert (found["severity_number"], found["severity_text"]) == (10, "INFO2")
    assert found["body"] == "An application event"
    assert found["resource"] == {"host.name": "mymachine.example.com", "sluice.source": "web-1"}
    attributes = found["attributes"]
    assert attributes["syslog.data.exampleSDID@32473.eventSource"] == 'Appli"cation'
    assert attributes["syslog.data.examplePriority@32473.class"] == "high"
    assert attributes["syslog.facility.name"] == "local4"
    assert attributes["process.pid"] == "111"


@pytest.mark.parametrize(
    ("line", "timestamp", "service", "body"),
    [
        (
            "<34>Oct 11 22:14:15 mymachine su: 'su root' failed on /dev/pts/8",
            "2025-10-11T22:14:15Z",
            "su",
            "'su root' failed on /dev/pts/8",
        ),
        (
            "Mar  7 06:55:46 LabSZ sshd[24200]: Invalid user webmaster from 173.234.31.186",
            "2026-03-07T06:55:46Z",
            "sshd",
            "Invalid user webmaster from 173.234.31.186",
        ),
        (
            "Mar 18 00:00:01 combo sshd(pam_unix)[19939]: check pass; user unknown",
            "2026-03-18T00:00:01Z",
            "sshd(pam_unix)",
            "check pass; user unknown",
        ),
        ("<13>Mar 17 08:00:00 app: no host at all", "2026-03-17T08:00:00Z", "app", "no host at all"),
        (
            "<13>Mar 17 08:00:00 machine a message without a tag",
            "2026-03-17T08:00:00Z",
            "web-1",
            "a message without a tag",
        ),
        ("<13>nothing but a priority", "2026-03-17T09:00:00Z", "web-1", "nothing but a priority"),
        (
            "<13>2026-03-17T08:00:00.5+00:00 machine rsyslogd: with an ISO time",
            "2026-03-17T08:00:00.500Z",
            "rsyslogd",
            "with an ISO time",
        ),
    ],
)
def test_syslog_of_rfc_3164_and_of_files(line: str, timestamp: str, service: str, body: str) -> None:
    found = record(line)
    assert (found["timestamp"], found["service_name"], found["body"]) == (timestamp, service, body)


@pytest.mark.parametrize(
    "line",
    [
        "<999>x y z",
        "<13",
        "<>x",
        "<-1>x",
        "<1a>x",
        "<13>1 yesterday host app 1 - - x",
        "<13>1 - - -",
        "March is long",
        "May 99 06:55:46 x y",
        "Jan 10 nonsense host app: x",
        "<²>x",
    ],
)
def test_what_only_begins_like_syslog_is_free_text(line: str) -> None:
    assert record(line)["body"] == line
    assert "sluice.not_in_format" not in record(line)["attributes"]


def test_structured_data_that_is_malformed_is_left_in_the_message() -> None:
    found = record('<13>1 2026-01-11T22:14:15Z h app - - [id a="1" b=2] hello')
    assert found["body"] == '[id a="1" b=2] hello'


def test_an_access_log_in_combined_form_with_its_time() -> None:
    line = (
        '203.0.113.9 - anna [17/Mar/2026:09:55:36 +0100] "POST /cart/add?id=7 HTTP/2.0" 504 2326 '
        '"https://shop.example/x" "Mozilla/5.0 (X11; Linux \\"x\\")" 1.250'
    )
    found = record(line)
    assert found["timestamp"] == "2026-03-17T08:55:36Z"
    assert (found["service_name"], found["event_name"], found["outcome"]) == ("web-1", "POST", "timeout")
    assert (found["duration_s"], found["transfer_bytes"], found["body"]) == (1.25, 2326, line)
    assert found["attributes"] == {
        "client.address": "203.0.113.9",
        "user.name": "anna",
        "http.request.method": "POST",
        "url.path": "/cart/add",
        "url.query": "id=7",
        "network.protocol.version": "2.0",
        "http.request.header.referer": "https://shop.example/x",
        "user_agent.original": 'Mozilla/5.0 (X11; Linux \\"x\\")',
        "http.response.status_code": 504,
    }


@pytest.mark.parametrize(
    ("line", "event", "outcome"),
    [
        ('127.0.0.1 - frank [10/Oct/2025:13:55:36 -0700] "GET /apache_pb.gif HTTP/1.0" 200 2326', "GET", "success"),
        ('shop.example 1.2.3.4 - - [10/Oct/2025:13:55:36 -0700] "GET / HTTP/1.1" 304 -', "GET", "success"),
        ('1.1.1.1 - - [10/Oct/2025:13:55:36 -0700] "\\x16\\x03\\x01" 400 0 "-" "-"', "unknown", "failure"),
        ('::1 - - [10/Oct/2025:13:55:36 -0700] "-" 408 - "-" "-"', "unknown", "timeout"),
    ],
)
def test_an_access_log_tells_the_outcome_by_its_status(line: str, event: str, outcome: str) -> None:
    found = record(line)
    assert (found["event_name"], found["outcome"], found["body"]) == (event, outcome, line)


@pytest.mark.parametrize(
    "line",
    [
        'a - - [10/Oct/2025:13:55:36 -0700] "GET / HTTP/1.1',
        'a - - [10/Oct/2025:13:55:36 -0700] "GET /" abc 1',
        'x [10/Oct/2025:13:55:36 -0700] "GET / HTTP/1.1" 200 1',
        '[client 1.2.3.4] "x" 200 1',
    ],
)
def test_a_malformed_access_log_is_free_text_and_says_so_where_the_format_was_declared(line: str) -> None:
    found = record(line, "text/x-access-log")
    assert (found["body"], found["attributes"]["sluice.not_in_format"]) == (line, "access")
    assert record(line)["body"] == line


def test_a_time_that_cannot_be_read_makes_no_dead_letter_of_a_text() -> None:
    line = '127.0.0.1 - frank [99/Oct/2025:13:55:36 -0700] "GET / HTTP/1.0" 200 2326'
    assert record(line)["body"] == line


def test_logfmt_is_read_as_the_same_json_object_would_be() -> None:
    found = record('ts=2026-03-17T08:00:00Z level=warn msg="disk \\"sda\\" is full\\n" took=12ms caller=main.go:42 ok=')
    assert found["timestamp"] == "2026-03-17T08:00:00Z"
    assert (found["severity_text"], found["body"], found["duration_s"]) == ("warn", 'disk "sda" is full\n', 0.012)
    assert found["attributes"]["caller"] == "main.go:42"
    assert found["attributes"]["log_template"].startswith('disk "sda" is full')


@pytest.mark.parametrize("line", ["a=1 b=2", "x = y", 'level=info msg="open', "level=info and prose", "uid=0 euid=0"])
def test_pairs_alone_are_not_taken_for_logfmt(line: str) -> None:
    assert record(line)["body"] == line


def test_declared_logfmt_takes_keys_without_values() -> None:
    found = record("debug user=7", "text/logfmt")
    assert found["attributes"] == {"debug": True, "user": "7"}


def test_csv_and_tsv_lines_have_their_columns_from_the_content_type() -> None:
    columns = '; columns="time,level,message,durationMs"'
    found = record('2026-03-17T08:00:00Z,error,"a, ""b""",12', "text/csv" + columns)
    assert (found["severity_text"], found["body"], found["duration_s"]) == ("error", 'a, "b"', 0.012)
    tsv = record("x\ty", 'text/tab-separated-values; columns="a\tb"')
    assert tsv["attributes"] == {"a": "x", "b": "y"}
    headed = record('a,b\r\n1,"two\nlines"', "text/csv; header=present")
    assert headed["attributes"] == {"a": "1", "b": "two\nlines"}


@pytest.mark.parametrize("line", ["1,2", "", "1,2,3,4", '"1,2,3', "a,b\nc"])
def test_a_row_of_other_columns_is_free_text(line: str) -> None:
    found = record(line, 'text/csv; columns="a,b,c"')
    assert (found["body"], found["attributes"]["sluice.not_in_format"]) == (line, "csv")


def test_a_line_of_iis() -> None:
    line = "2026-03-17 08:00:05 10.0.0.1 GET /x y=1 443 - 203.0.113.9 Mozilla/5.0+(Windows+NT) 500 0 64 1234"
    found = record(line, IIS)
    assert (found["timestamp"], found["event_name"], found["outcome"]) == ("2026-03-17T08:00:05Z", "GET", "failure")
    assert (found["duration_s"], found["body"]) == (1.234, line)
    assert found["attributes"]["user_agent.original"] == "Mozilla/5.0 (Windows NT)"
    assert "user.name" not in found["attributes"]
    assert record("#Fields: date time", IIS)["body"] == "#Fields: date time"


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        (
            'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\n    f()\nValueError: bad 12',
            "ValueError",
            "bad 12",
        ),
        (
            "2026 ERROR task failed\nTraceback (most recent call last):\n  File \"x.py\", line 1\nKeyError: 'a'\n\n"
            "During "
            "handling "
            "of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n"
            '  File "y.py", line '
            "2\npkg.errors.Broken: it is",
            "pkg.errors.Broken",
            "it is",
        ),
        ('Traceback (most recent call last):\n  File "x.py", line 1\nKeyboardInterrupt', "KeyboardInterrupt", None),
        (
            'Exception in thread "main" java.lang.IllegalStateException: no\n\tat a.b.C.d(C.java:12)\n'
            "\tat a.b.Main.main(Main.java)\n"
            "Caused by: java.io.IOException: deep\n\t... 2 more",
            "java.lang.IllegalStateException",
            "no",
        ),
        (
            "10:00 ERROR [x] failed\njava.lang.NullPointerException\n\tat a.B.c(Native Method)",
            "java.lang.NullPointerException",
            None,
        ),
        (
            "panic: runtime error: index out of range [5] with length 3\n\ngoroutine 1 [running]:\n"
            "main.main()\n\t/x.go:8 +0x1d",
            "panic",
            "runtime error: index out of range [5] with length 3",
        ),
        (
            "Unhandled exception. System.InvalidOperationException: Nope\n   at Foo.Bar(String s) in C:\\x\\y.cs:"
            "line 12\n"
            "   at Foo.Main()",
            "System.InvalidOperationException",
            "Nope",
        ),
    ],
)
def test_a_stack_trace_is_one_record_that_says_what_happened(text: str, kind: str, message: str | None) -> None:
    found = record(text, "text/plain")
    assert (found["body"], found["outcome"], found["event_name"]) == (text, "failure", kind)
    assert (found["attributes"]["exception.type"], found["attributes"].get("exception.message")) == (kind, message)


@pytest.mark.parametrize(
    "text", ["two\nlines", "we met\n at (noon)", "Traceback (most recent call last):\n  File", "panic: x\ny"]
)
def test_several_lines_without_frames_are_free_text(text: str) -> None:
    assert record(text, "text/plain")["outcome"] == "unknown"


def otlp(*records: dict[str, Any]) -> str:
    resource = {
        "attributes": [
            {"key": "service.name", "value": {"stringValue": "cart"}},
            {"key": "host.name", "value": {"stringValue": "h1"}},
        ]
    }
    scope = {"name": "lib", "version": "1.2"}
    logs = [{"resource": resource, "scopeLogs": [{"scope": scope, "logRecords": list(records)}]}]
    return json.dumps({"resourceLogs": logs})


OTLP = "application/vnd.sluice.otlp+json"


def test_a_log_record_of_otlp() -> None:
    found = record(
        otlp(
            {
                "timeUnixNano": "1773734400000000123",
                "severityNumber": 13,
                "severityText": "WARN",
                "eventName": "cart.full",
                "body": {"stringValue": "cart 7 is full"},
                "traceId": "5B8EFFF798038103D269B633813FC60C",
                "spanId": "EEE19B7EC3C1B174",
                "attributes": [
                    {"key": "http.response.status_code", "value": {"intValue": "503"}},
                    {"key": "body", "value": {"boolValue": True}},
                    {"key": "list", "value": {"arrayValue": {"values": [{"intValue": "1"}]}}},
                ],
            }
        ),
        OTLP,
    )
    assert found["timestamp"] == "2026-03-17T08:00:00.000000123Z"
    assert (found["service_name"], found["event_name"], found["outcome"]) == ("cart", "cart.full", "failure")
    assert (found["severity_number"], found["body"]) == (13, "cart 7 is full")
    assert (found["trace_id"], found["span_id"]) == ("5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174")
    assert found["resource"]["host.name"] == "h1"
    assert found["attributes"]["attributes.body"] is True
    assert found["attributes"]["list"] == '{"values":[{"intValue":"1"}]}'
    assert found["attributes"]["log_template"] == "cart <*> is full"


@pytest.mark.parametrize(
    ("body", "reason"),
    [(otlp(), "invalid_field"), (otlp({}, {}), "invalid_field"), ("{", "malformed_json"), ("[]", "malformed_json")],
)
def test_an_otlp_request_that_is_not_one_record_is_a_dead_letter(body: str, reason: str) -> None:
    good, (bad,) = standardized(Standardizer(1 << 24, 1 << 21), [body.encode()], ARRIVAL, OTLP)
    assert good == []
    assert bad.reason == reason


def test_json_is_never_taken_for_text() -> None:
    assert record('{"level":"info","msg":"a=b level=info msg=x"}')["body"] == "a=b level=info msg=x"
