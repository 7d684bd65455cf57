"""The made-up fleet."""

import csv
import io
from collections import Counter

import pytest

from native import fleet
from native.fleet import BLANK, COLUMNS, METRICS, Plan, fleet_of, rows_of


def test_counts_are_exact_and_hosts_uneven() -> None:
    rows = list(rows_of(Plan()))
    assert len(rows) == len(set(rows)) == 2_470
    by_host = Counter(gpu.host for gpu in fleet_of(Plan()))
    assert len(by_host) == 31
    assert sum(by_host.values()) == 247
    assert len(set(by_host.values())) > 3
    assert len({row[COLUMNS.index("uuid")] for row in rows}) == 247
    assert {row[COLUMNS.index("metric_name")] for row in rows} == set(METRICS)


@pytest.mark.parametrize(("hosts", "gpus"), [(1, 1), (1, 100), (50, 50), (3, 1_000)])
def test_any_fleet_has_its_hosts_and_gpus(hosts: int, gpus: int) -> None:
    made = fleet_of(Plan(hosts=hosts, gpus=gpus))
    assert (len({gpu.host for gpu in made}), len(made), len({gpu.uuid for gpu in made})) == (hosts, gpus, gpus)


def test_the_seed_decides() -> None:
    assert list(rows_of(Plan(rounds=2))) == list(rows_of(Plan(rounds=2)))
    assert list(rows_of(Plan(seed=1))) != list(rows_of(Plan(seed=2)))


def test_readings_of_a_gpu_belong_together() -> None:
    readings: dict[str, dict[str, float]] = {}
    for row in rows_of(Plan(hosts=20, gpus=100)):
        readings.setdefault(row[4], {})[row[1]] = float(row[10])
    busy = sorted(readings.values(), key=lambda gpu: gpu["DCGM_FI_DEV_GPU_UTIL"])
    for metric in ("DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_FB_USED"):
        assert sum(gpu[metric] for gpu in busy[:20]) < sum(gpu[metric] for gpu in busy[-20:])


def test_energy_only_grows() -> None:
    rows = rows_of(Plan(hosts=1, gpus=1, rounds=20))
    of_one = [int(row[10]) for row in rows if row[1] == "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"]
    assert of_one == sorted(of_one)
    assert len(set(of_one)) == 20


def test_blanks_mig_and_xids_come_when_they_are_asked_for() -> None:
    rows = list(rows_of(Plan(mig=0.5, blanks=0.1, xids=0.5)))
    assert 150 < sum(row[10] == BLANK for row in rows) < 350
    assert 0 < sum("GPU_I_ID" in row[11] for row in rows) < len(rows)
    assert any(row[1] == "DCGM_FI_DEV_XID_ERRORS" and row[10] not in {"0", BLANK} for row in rows)


def test_the_command_writes_csv(capsys: pytest.CaptureFixture[str]) -> None:
    fleet.main(["--hosts", "2", "--gpus", "3", "--metrics", "4"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 12
    assert tuple(rows[0]) == COLUMNS
    assert 'UUID="GPU-' in rows[0]["labels_raw"]


def test_what_can_not_be_made_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fleet.main(["--hosts", "5", "--gpus", "3"])
    assert "can't be spread" in capsys.readouterr().err
