"""What becomes of an entry of GPU telemetry."""

import time
from collections import Counter
from typing import Any

import msgspec
import pytest

from shared import dcgm
from shared.records import Record, Sample
from standardization.redaction import GROUPS, Redaction
from standardization.standardize import Arrival, Standardized, Standardizer
from tests.standardizing import all_of, equal_names

GPU = "GPU-5fd4f087-86f3-7a43-b711-4771313afc50"


def row(**fields: Any) -> dict[str, Any]:
    return {
        "timestamp": "2025-07-18T20:42:34Z",
        "metric_name": "DCGM_FI_DEV_GPU_UTIL",
        "gpu_id": "3",
        "device": "nvidia3",
        "uuid": GPU,
        "modelName": "NVIDIA H100 80GB HBM3",
        "Hostname": "mtv5-dgx1-hgpu-031",
        "container": "",
        "pod": "train-0",
        "namespace": "ml",
        "value": "7",
        "labels_raw": 'DCGM_FI_DRIVER_VERSION="535.129.03",Hostname="mtv5-dgx1-hgpu-031",UUID="x",note="a, \\"b\\""',
        **fields,
    }


ARRIVAL = Arrival("2026-01-01T00:00:00Z", run_id="r")


def found(*entries: dict[str, Any], arrival: Arrival = ARRIVAL) -> Standardized:
    return all_of(Standardizer(1 << 20, 1 << 20), [msgspec.json.encode(entry) for entry in entries], arrival)


def sample(**fields: Any) -> Sample:
    """The sample of a row with these fields; read the slow way and, once its shape is known, the fast way: the same."""
    made = found(*[row(**fields)] * 5)
    assert made.rejected == []
    assert len(made.samples) == 5
    read = [msgspec.json.decode(line, type=Sample) for _, line in made.samples]
    assert {each.record_id[-2:] for each in read} == {f"-{number}" for number in range(5)}
    assert all(msgspec.structs.replace(each, record_id=read[0].record_id) == read[0] for each in read)
    assert {key for key, _ in made.samples} == {read[0].hw_id.encode()}
    return read[0]


def test_every_column_has_its_place() -> None:
    made = sample()
    assert made == Sample(
        record_id=made.record_id,
        timestamp="2025-07-18T20:42:34Z",
        observed_timestamp="2026-01-01T00:00:00Z",
        hw_id=GPU,
        metric="hw.gpu.utilization",
        source_metric="DCGM_FI_DEV_GPU_UTIL",
        unit="1",
        value=0.07,
        run_id="r",
        host_name="mtv5-dgx1-hgpu-031",
        hw_model="NVIDIA H100 80GB HBM3",
        gpu_index=3,
        device="nvidia3",
        pod="train-0",
        namespace="ml",
        attributes={"hw.gpu.task": "general", "DCGM_FI_DRIVER_VERSION": "535.129.03", "note": 'a, "b"'},
    )


@pytest.mark.parametrize(
    ("name", "value", "metric", "unit", "expected"),
    [
        ("DEV_GPU_UTIL", "100", "hw.gpu.utilization", "1", 1.0),
        ("DEV_MEM_COPY_UTIL", 7, "hw.gpu.memory.controller.utilization", "1", 0.07),
        ("DEV_FB_USED", "2", "hw.gpu.memory.usage", "By", 2 * 1024 * 1024),
        ("DEV_GPU_TEMP", "45", "hw.temperature", "Cel", 45.0),
        ("DEV_POWER_USAGE", "68.5", "hw.power", "W", 68.5),
        ("DEV_TOTAL_ENERGY_CONSUMPTION", "1234567", "hw.energy", "J", 1234.567),
        ("DEV_SM_CLOCK", "1980", "hw.gpu.speed", "Hz", 1.98e9),
        ("DEV_ECC_DBE_VOL_TOTAL", "3", "hw.errors", "{error}", 3.0),
        ("PROF_GR_ENGINE_ACTIVE", "0.123456", "dcgm.prof.gr_engine_active", "1", 0.123456),
        ("DEV_XID_ERRORS", "79", "hw.gpu.xid", "1", 79.0),
        ("DEV_SOMETHING_NEW", "-1.5e3", "dcgm.dev.something_new", "", -1500.0),
    ],
)
def test_a_metric_has_opentelemetrys_name_and_base_unit(
    name: str, value: Any, metric: str, unit: str, expected: float
) -> None:
    made = sample(metric_name=f"DCGM_FI_{name}", value=value)
    assert (made.metric, made.unit, made.value, made.source_metric) == (metric, unit, expected, f"DCGM_FI_{name}")


@pytest.mark.parametrize(
    "value",
    [
        "", "N/A", "n/a", "NaN", "<<<NOT_SUPPORTED>>>", None,
        9223372036854775792, "9223372036854775794", "9223372036854775807", "9.223372036854776e18",
        2147483632, "2147483634", 140737488355328.0, "140737488355330",
    ],
)  # fmt: skip
def test_a_blank_is_no_number(value: Any) -> None:
    assert sample(value=value).value is None


def test_a_counter_may_read_what_is_a_blank_of_32_bits() -> None:
    made = sample(metric_name="DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", value="2147483634")
    assert made.value == 2147483.634


def test_metrics_of_one_name_are_told_apart_by_an_attribute() -> None:
    tasks = {sample(metric_name=f"DCGM_FI_DEV_{name}_UTIL").attributes["hw.gpu.task"] for name in ("GPU", "ENC", "DEC")}
    assert tasks == {"general", "encoder", "decoder"}


@pytest.mark.parametrize(
    ("fields", "hw_id", "parent"),
    [
        ({"labels_raw": 'GPU_I_ID="2",GPU_I_PROFILE="1g.10gb"'}, f"{GPU}:mig-2", GPU),
        ({"GPU_I_ID": "2"}, f"{GPU}:mig-2", GPU),
        ({"uuid": "MIG-c6d4f1ef"}, "MIG-c6d4f1ef", None),
        ({"uuid": f"MIG-{GPU}/7/0"}, f"MIG-{GPU}:7:0", GPU),
        ({"labels_raw": 'GPU_I_ID=""'}, GPU, None),
    ],
)
def test_a_mig_instance_has_an_identity_of_its_own(fields: dict[str, str], hw_id: str, parent: str | None) -> None:
    made = sample(**fields)
    assert (made.hw_id, made.hw_parent) == (hw_id, parent)


def test_keys_may_be_of_any_case_and_what_is_not_known_is_kept() -> None:
    entry = {name.upper(): value for name, value in row().items()} | {"rack": {"row": 7}}
    made = found(entry, arrival=Arrival("2026-01-01T00:00:00Z", source="dc-1"))
    read = msgspec.json.decode(made.samples[0][1], type=Sample)
    assert (read.hw_id, read.host_name, read.gpu_index) == (GPU, "mtv5-dgx1-hgpu-031", 3)
    assert read.attributes["rack.row"] == 7
    assert read.attributes["sluice.source"] == "dc-1"


def test_labels_that_can_not_be_read_are_kept_as_they_came() -> None:
    assert sample(labels_raw="a=1;b=2").attributes["labels_raw"] == "a=1;b=2"


@pytest.mark.parametrize(
    "fields", [{"metric_name": "node_load1"}, {"uuid": ""}, {"note": "x" * 20_000}, {"metric_name": "DCGM_FI_a b"}]
)
def test_what_only_looks_like_a_sample_is_a_record(fields: dict[str, str]) -> None:
    made = found(*[row(**fields)] * 5)
    assert (made.samples, made.rejected) == ([], [])
    read = [msgspec.json.decode(line, type=Record) for _, line in made.records]
    assert all(each.attributes["modelName"] == "NVIDIA H100 80GB HBM3" for each in read)


@pytest.mark.parametrize(("name", "value"), [("value", "much"), ("timestamp", "soon"), ("value", True)])
def test_a_reading_that_is_none_is_refused_by_its_name(name: str, value: Any) -> None:
    made = found(*[row(**{name: value})] * 5)
    assert {bad.reason for bad in made.rejected} == {"invalid_field"}
    assert len(made.rejected) == 5
    assert name in made.rejected[0].detail


def test_samples_and_records_in_one_frame_keep_their_places() -> None:
    made = found(row(), {"source": "x", "status": "SUCCESS"}, row(value="8"), row(value="much"))
    assert [msgspec.json.decode(line)["record_id"][-2:] for _, line in made.samples] == ["-0", "-2"]
    assert [msgspec.json.decode(line)["record_id"][-2:] for _, line in made.records] == ["-1"]
    assert [bad.index for bad in made.rejected] == [3]


def test_every_known_field_has_a_unit_and_a_description() -> None:
    for name, field in dcgm.FIELDS.items():
        assert field.unit, name
        assert field.description.endswith("."), name


def test_a_metric_leads_back_to_its_fields() -> None:
    for name, field in dcgm.FIELDS.items():
        assert name in dcgm.names_of(field.metric)
        assert dcgm.names_of(name) == [name]
    assert len(dcgm.names_of("hw.gpu.utilization")) == 3
    for name in ("DCGM_FI_DEV_SOMETHING_NEW", "DCGM_FI_PROF_X"):
        assert dcgm.names_of(dcgm.field_of(name).metric) == dcgm.names_of(name) == [name]


def test_a_value_of_thousands_of_digits_is_refused_and_stops_nothing() -> None:
    (bad,) = found(row(value="9" * 5_000)).rejected
    assert bad.detail.startswith("value is '999")


def test_what_only_the_labels_name_is_taken_from_them() -> None:
    labels = 'Hostname="n1",modelName="H100",device="d0"'
    found = sample(Hostname="", modelName="", device="", labels_raw=labels)
    assert (found.host_name, found.hw_model, found.device) == ("n1", "H100", "d0")


def test_two_values_of_one_name_are_both_kept() -> None:
    kept = sample(**{"a.b": 1, "a": {"b": 2}}).attributes
    assert {kept["a.b"], kept["a.b#2"]} == {1, 2}


def test_a_secret_of_a_sample_is_redacted_too() -> None:
    subject = Standardizer(1 << 20, 1 << 20, redaction=Redaction(GROUPS))
    entry = row(pod="mail a@b.com", labels_raw='password="hunter2"')
    ((_, line),) = all_of(subject, [msgspec.json.encode(entry)], ARRIVAL).samples
    assert b"hunter2" not in line
    assert b"a@b.com" not in line
    assert subject.redactions() == {"password": 1, "email": 1}


def test_a_sample_may_come_as_a_line_of_csv() -> None:
    subject = Standardizer(1 << 20, 1 << 20)
    kind = 'text/csv; columns="metric_name,uuid,value"'
    assert len(all_of(subject, [b"DCGM_FI_DEV_GPU_UTIL,GPU-1,5"], ARRIVAL, kind).samples) == 1


def test_a_thousand_equal_names_are_kept_in_a_moment() -> None:
    began = time.process_time()
    made = found(*[row(**equal_names(10, ""))] * 120)
    assert time.process_time() - began < 2  # the square of it took 6
    assert len(made.samples) == 120
    attributes = msgspec.json.decode(made.samples[0][1], type=Sample).attributes
    assert Counter(name.partition("#")[0] for name in attributes)["." * 10] == 2**10
