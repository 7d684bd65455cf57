"""A fleet's telemetry through the whole stack: from a CSV file to the API, exactly, and over again."""

import uuid
from collections.abc import Iterator

import pytest

from native.fleet import COLUMNS, Plan, fleet_of, rows_of
from native.kafka import Broker
from tests.integration.stack import Stack

pytestmark = pytest.mark.kafka

FLEET = Plan()
ODD = Plan(hosts=2, gpus=12, mig=0.5, blanks=0.2, xids=0.9, seed=7)


def csv_of(plan: Plan) -> str:
    """With a header, and quotes wherever a field could need them."""
    rows = [COLUMNS, *rows_of(plan)]
    return "".join(",".join('"' + field.replace('"', '""') + '"' for field in row) + "\r\n" for row in rows)


@pytest.fixture(scope="module")
def stack(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "fleet.csv").write_text(csv_of(FLEET))
    (folder / "broken.csv").write_text(csv_of(Plan(hosts=1, gpus=1)) + 'one,"two"\r\n' + "," * 11 + "\r\n")
    with Stack(broker, folder, f"t{uuid.uuid4().hex[:8]}-", {"INGEST_DIR": str(folder)}) as running:
        yield running


def total(stack: Stack, path: str) -> int:
    answer = stack.get("processing", path, limit=1)
    answer.raise_for_status()
    found: int = answer.json()["total"]
    return found


def samples(stack: Stack) -> int:
    metrics = stack.get("processing", "/api/v1/metrics").json()["metrics"]
    return sum(metric["samples"] for metric in metrics)


def test_a_file_of_31_hosts_and_247_gpus_is_told_exactly_and_twice_doubles_samples_only(stack: Stack) -> None:
    for times in (1, 2):
        taken = stack.get("ingestion", "/ingest/trigger", file="fleet.csv").json()
        assert taken["accepted"] == 2_470
        receipt = stack.receipt(taken["run_id"])
        assert (receipt["stored"], receipt["dead_lettered"]) == (2_470, 0)
        assert (total(stack, "/api/v1/hosts"), total(stack, "/api/v1/gpus")) == (31, 247)
        assert samples(stack) == 2_470 * times

    gpu = fleet_of(FLEET)[42]
    readings = stack.get("processing", f"/api/v1/gpus/{gpu.uuid}/telemetry").json()
    assert readings["total"] == 20
    raw = stack.get("processing", f"/records/{readings['telemetry'][0]['record_id']}/raw")
    assert raw.json()["uuid"] == gpu.uuid

    assert stack.summary()["total"] == 0, "samples are no records"
    assert stack.metric("processing", "sluice_store_rows_total", table="samples") == 4_940


def test_mig_blanks_and_xids_arrive_as_what_they_are(stack: Stack) -> None:
    answer = stack.push(csv_of(ODD).encode(), kind="text/csv; charset=utf-8", source="lab")
    assert answer.json()["accepted"] == 120, answer.text
    stack.receipt(answer.json()["run_id"])
    for gpu in fleet_of(ODD):
        identity = f"{gpu.uuid}:mig-{gpu.instance}" if gpu.instance else gpu.uuid
        shown = stack.get("processing", f"/api/v1/gpus/{identity}").json()
        assert shown["parent"] == (gpu.uuid if gpu.instance else None)
        readings = stack.get("processing", f"/api/v1/gpus/{identity}/telemetry").json()["telemetry"]
        sent = {row[1]: row[10] for row in rows_of(ODD) if row[4] == gpu.uuid}
        assert {reading["source_metric"] for reading in readings} == set(sent)
        for reading in readings:
            blank = sent[reading["source_metric"]].startswith("92233720368547757")
            assert (reading["value"] is None) == blank, (reading, sent)
            if reading["metric"] == "hw.gpu.xid" and not blank:
                assert reading["value"] == float(sent["DCGM_FI_DEV_XID_ERRORS"])
            if reading["metric"] == "hw.gpu.utilization" and not blank:
                assert reading["value"] == pytest.approx(int(sent["DCGM_FI_DEV_GPU_UTIL"]) / 100)


def test_a_row_that_does_not_fit_is_a_dead_letter_and_the_rest_goes_on(stack: Stack) -> None:
    taken = stack.get("ingestion", "/ingest/trigger", file="broken.csv").json()
    assert taken["accepted"] == 12
    receipt = stack.receipt(taken["run_id"])
    assert (receipt["stored"], receipt["dead_lettered"]) == (11, 1)
    letters = stack.get("processing", "/dead-letters").json()["dead_letters"]
    (letter,) = [letter for letter in letters if letter["run_id"] == taken["run_id"]]
    raw = stack.get("processing", f"/records/{letter['record_id']}/raw")
    assert raw.json() == ["line 12 has 2 fields, the header 12", "one", "two"]


def test_a_csv_without_rows_that_can_be_told_apart_is_refused(stack: Stack) -> None:
    answer = stack.push(b'a,b\n1,"2\n', kind="text/csv")
    assert answer.status_code == 422
    assert "line 2" in answer.json()["detail"]
