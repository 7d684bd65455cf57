"""GPU fleet: whether it is there, how busy and how hot it is, what is wrong with it, and which GPUs."""

from typing import Final

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard

from grafana.panels import SOURCE_OF_DATA, Graph, Number, Panel, Query, Row, Table, dashboard_of
from grafana.rules import Alerts

UID: Final = "sluice-gpus"
TITLE: Final = "GPU fleet"

_NONE: Final = "no GPUs"
_LATELY: Final = "Of GPUs of which samples arrived in the last 5 minutes, whenever these were taken."
_OWN: Final = (
    "Of the GPUs that have metrics of their own, GPU_LABELS at most; GET /api/v1/gpus/{uuid}/telemetry of processing "
    "has every GPU, and all of its past."
)
_HOST: Final = '{host=~"$host"}'
_GPU: Final = '{host=~"$host", gpu=~"$gpu"}'


def _fleet() -> list[Panel]:
    return [
        Number(
            id=30,
            title="Hosts",
            about=f"Hosts that have GPUs. {_LATELY}",
            unit="locale",
            queries=[Query(f"count(sluice_gpu_host_devices{_HOST} > 0)")],
            color="blue",
            empty=_NONE,
            width=4,
            height=4,
        ),
        Number(
            id=31,
            title="GPUs",
            about=f"MIG instances count, each as one. {_LATELY}",
            unit="locale",
            queries=[Query(f"sum(sluice_gpu_host_devices{_HOST})")],
            color="blue",
            empty=_NONE,
            width=4,
            height=4,
        ),
        Number(
            id=32,
            title="Utilization",
            about=f"The mean of all GPUs of the chosen hosts. {_LATELY}",
            unit="percentunit",
            queries=[
                Query(
                    f"sum(sluice_gpu_host_utilization_ratio{_HOST} * sluice_gpu_host_devices{_HOST}) "
                    f"/ (sum(sluice_gpu_host_devices{_HOST}) > 0)"
                )
            ],
            empty=_NONE,
            decimals=1,
            width=4,
            height=4,
        ),
        Number(
            id=33,
            title="Power",
            about=f"What all GPUs of the chosen hosts draw. {_LATELY}",
            unit="watt",
            queries=[Query(f"sum(sluice_gpu_host_power_watts{_HOST})")],
            empty=_NONE,
            width=4,
            height=4,
        ),
        Number(
            id=34,
            title="Hottest GPU",
            about=f"The highest temperature of any GPU of the chosen hosts. {_LATELY}",
            unit="celsius",
            queries=[Query(f"max(sluice_gpu_host_temperature_celsius{_HOST})")],
            empty=_NONE,
            width=4,
            height=4,
        ),
        Number(
            id=35,
            title="GPUs with an XID error",
            about="GPUs whose last XID error is not cleared: it stays until the driver is loaded anew or the GPU is "
            f"reset. {_LATELY}",
            unit="locale",
            queries=[Query(f"sum(sluice_gpu_host_xid_devices{_HOST}) or vector(0)")],
            color="orange",
            width=4,
            height=4,
        ),
    ]


def _busy() -> list[Panel]:
    return [
        Graph(
            id=1,
            title="Utilization by host",
            about=f"The mean of a host's GPUs. {_LATELY}",
            unit="percentunit",
            queries=[Query(f"max by (host) (sluice_gpu_host_utilization_ratio{_HOST})", "{{host}}")],
            maximum=1,
            empty=_NONE,
            width=12,
        ),
        Graph(
            id=2,
            title="Memory in use by host",
            about=f"Share of the memory of a host's GPUs. {_LATELY}",
            unit="percentunit",
            queries=[
                Query(
                    f"max by (host) (sluice_gpu_host_memory_used_bytes{_HOST}) "
                    f"/ (max by (host) (sluice_gpu_host_memory_bytes{_HOST}) > 0)",
                    "{{host}}",
                )
            ],
            maximum=1,
            empty=_NONE,
            width=12,
        ),
    ]


def _hot(alerts: Alerts) -> list[Panel]:
    return [
        Graph(
            id=3,
            title="Hottest GPU by host",
            about=f"The highest temperature of a host's GPUs. {_LATELY}",
            unit="celsius",
            queries=[Query(f"max by (host) (sluice_gpu_host_temperature_celsius{_HOST})", "{{host}}")],
            limits=alerts.thresholds("SluiceGpuHot"),
            empty=_NONE,
            width=12,
        ),
        Graph(
            id=4,
            title="Power by host",
            about=f"What a host's GPUs draw together. {_LATELY}",
            unit="watt",
            queries=[Query(f"max by (host) (sluice_gpu_host_power_watts{_HOST})", "{{host}}")],
            style="stacked",
            empty=_NONE,
            width=12,
        ),
    ]


def _wrong() -> list[Panel]:
    return [
        Graph(
            id=5,
            title="XID errors",
            about="GPUs of a host by the code of their last XID error; NVIDIA's list says what a code means. "
            f"{_LATELY}",
            unit="locale",
            queries=[Query(f"max by (host, xid) (sluice_gpu_host_xid_devices{_HOST})", "{{host}}: XID {{xid}}")],
            style="stacked",
            empty="no errors",
            width=12,
        ),
        Graph(
            id=6,
            title="GPUs by host",
            about="A line that falls to 0 is a host that is lost; it is forgotten after an hour. MIG instances count, "
            f"each as one. {_LATELY}",
            unit="locale",
            queries=[Query(f"max by (host) (sluice_gpu_host_devices{_HOST})", "{{host}}")],
            empty=_NONE,
            width=12,
        ),
    ]


def _which() -> list[Panel]:
    steps = [
        (
            "organize",
            {"excludeByName": {"Time": True}, "renameByName": {"Value": "utilization", "gpu": "GPU"}},
        )
    ]
    return [
        Table(
            id=36,
            title="Busiest GPUs",
            about=f"The ten with the highest utilization now. {_OWN}",
            unit="percentunit",
            queries=[Query(f"topk(10, max by (host, gpu) (sluice_gpu_utilization_ratio{_HOST}))")],
            steps=steps,
            sort="utilization",
            empty=_NONE,
            width=12,
            height=9,
        ),
        Table(
            id=37,
            title="Idle GPUs",
            about=f"The ten with the lowest utilization now. {_OWN}",
            unit="percentunit",
            queries=[Query(f"bottomk(10, max by (host, gpu) (sluice_gpu_utilization_ratio{_HOST}))")],
            steps=steps,
            empty=_NONE,
            width=12,
            height=9,
        ),
        Graph(
            id=7,
            title="Utilization of the chosen GPUs",
            about=f"A line that is level for half an hour, and neither 0 nor 1, is a reading that is stuck. {_OWN}",
            unit="percentunit",
            queries=[Query(f"max by (gpu) (sluice_gpu_utilization_ratio{_GPU})", "{{gpu}}")],
            maximum=1,
            empty=_NONE,
            width=12,
        ),
        Graph(
            id=38,
            title="Memory of the chosen GPUs",
            about=f"Memory in use. {_OWN}",
            unit="bytes",
            queries=[Query(f"max by (gpu) (sluice_gpu_memory_used_bytes{_GPU})", "{{gpu}}")],
            empty=_NONE,
            width=12,
        ),
        Graph(
            id=39,
            title="Temperature of the chosen GPUs",
            about=f"Of the GPU itself, not of its memory. {_OWN}",
            unit="celsius",
            queries=[Query(f"max by (gpu) (sluice_gpu_temperature_celsius{_GPU})", "{{gpu}}")],
            empty=_NONE,
            width=12,
        ),
        Graph(
            id=40,
            title="Power of the chosen GPUs",
            about=f"What they draw. {_OWN}",
            unit="watt",
            queries=[Query(f"max by (gpu) (sluice_gpu_power_watts{_GPU})", "{{gpu}}")],
            empty=_NONE,
            width=12,
        ),
    ]


def _variable(name: str, label: str, query: str) -> builders.QueryVariable:
    return (
        builders.QueryVariable(name)
        .label(label)
        .datasource(SOURCE_OF_DATA)
        .query({"query": query, "refId": name})
        .definition(query)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_CASE_INSENSITIVE_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(".*")
        .current(dashboard.VariableOption(selected=True, text="All", value="$__all"))
    )


def build(alerts: Alerts) -> dashboard.Dashboard:
    rows = [
        Row("Is the fleet there?", _fleet()),
        Row("How busy is it?", _busy()),
        Row("How hot is it, and what does it draw?", _hot(alerts)),
        Row("What is wrong?", _wrong()),
        Row("Which GPUs?", _which()),
    ]
    links = [
        ("Overview", "/d/sluice-overview"),
        ("Sources", "/d/sluice-sources"),
        ("Pipeline", "/d/sluice-pipeline"),
    ]
    variables = [
        _variable("host", "Host", "label_values(sluice_gpu_host_devices, host)"),
        _variable("gpu", "GPU", 'label_values(sluice_gpu_utilization_ratio{host=~"$host"}, gpu)'),
    ]
    about = "The GPU fleet now: host by host, and GPU by GPU for those that have metrics of their own."
    return dashboard_of(UID, TITLE, about, rows, alerts, links, variables)
