"""On what the figures were measured."""

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import confluent_kafka
import psutil

from native.kafka import java


def describe(kafka_libs: Path) -> dict[str, str]:
    """Cores, memory and versions, each by its name."""
    return {
        "cores": f"{len(os.sched_getaffinity(0))} of {os.cpu_count()}",
        "CPU": _cpu_model(),
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "Python": platform.python_version(),
        "librdkafka": f"{confluent_kafka.libversion()[0]} (confluent-kafka {version('confluent-kafka')})",
        "Kafka": _kafka_version(kafka_libs),
        "Java": _java_version(),
        "chdb": version("chdb"),
        "load at the start": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def _cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.processor() or "unknown"


def _kafka_version(libs: Path) -> str:
    (jar,) = libs.glob("kafka-clients-*.jar")
    return jar.stem.removeprefix("kafka-clients-")


def _java_version() -> str:
    done = subprocess.run([java(), "--version"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0]
