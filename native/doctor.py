"""`make doctor`: what on this machine would keep the stack from running well, each with its remedy."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.table import Table

from native import machine, prerequisites, stack
from native.report import size
from native.settings import NativeSettings
from native.supervisor import Supervisor

DISK_MIN = 5_000_000_000  # topics for a week of a small site, the spools, and room to merge the store
MEMORY_MIN = 2_000_000_000  # measured at rest: 1 GB; the rest is for load and the page cache


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `remedy` says what to do where it is not good."""

    subject: str
    good: bool
    found: str
    remedy: str = ""


def examine(settings: NativeSettings) -> list[Finding]:
    supervisor = Supervisor(stack.run_folder(settings))
    running = supervisor.running()
    return [
        *_versions(),
        *(_running(supervisor) if running else [*_ports(settings), *_leftovers(supervisor.folder)]),
        _disk(settings.data_dir),
        _memory(running=running),
        *_other_daemons(),
    ]


def table(findings: list[Finding]) -> Table:
    shown = Table("", "subject", "found", "remedy")
    for finding in findings:
        mark = "[green]✓[/green]" if finding.good else "[red]✗[/red]"
        shown.add_row(mark, finding.subject, finding.found, finding.remedy)
    return shown


def _versions() -> list[Finding]:
    findings = []
    for tool in prerequisites.TOOLS.values():
        version = tool.version()
        remedy = "" if version else prerequisites.remedy([tool])
        findings.append(Finding(tool.name, version is not None, version or f"missing; {tool.why}", remedy))
    return findings


def _running(supervisor: Supervisor) -> list[Finding]:
    return [
        Finding(
            state.name,
            state.state == "RUNNING",
            f"{state.state}, process {state.pid}" if state.pid else state.state,
            "" if state.state == "RUNNING" else f"look into {supervisor.log(state.name)}",
        )
        for state in supervisor.states()
    ]


def _ports(settings: NativeSettings) -> list[Finding]:
    held = {each.port: each for each in machine.taken(stack.ports(settings))}
    findings = []
    for port in stack.ports(settings):
        subject = f"port {port.number} ({port.program})"
        if port in held:
            remedy = f"stop that, or set {port.setting} to a free port in .env"
            findings.append(Finding(subject, good=False, found=f"taken by {held[port].holder}", remedy=remedy))
        else:
            findings.append(Finding(subject, good=True, found="free"))
    return findings


def _leftovers(run_folder: Path) -> list[Finding]:
    left = machine.leftovers(run_folder)
    if not left:
        return [Finding("leftover processes", good=True, found="none")]
    names = ", ".join(f"{machine.program_of(process)} ({process.pid})" for process in left)
    return [Finding("leftover processes", good=False, found=names, remedy="make down")]


def _disk(folder: Path) -> Finding:
    there = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(there).free
    writable = os.access(there, os.W_OK)
    found = f"{size(free)} free under {there}" + ("" if writable else ", not writable")
    remedy = f"free {size(DISK_MIN)}, or set DATA_DIR to a folder of yours on a larger disk"
    good = free >= DISK_MIN and writable
    return Finding("disk", good, found, "" if good else remedy)


def _memory(*, running: bool) -> Finding:
    available = psutil.virtual_memory().available
    good = running or available >= MEMORY_MIN
    remedy = "" if good else f"the stack wants {size(MEMORY_MIN)}: end what you can spare"
    return Finding("memory", good, f"{size(available)} available", remedy)


def _other_daemons() -> list[Finding]:
    """Debian's packages start a Prometheus and an Alertmanager at every boot, on ports that ours take by default."""
    found = []
    for name in prerequisites.DAEMONS:
        unit = prerequisites.TOOLS[name].package
        if Path(f"/etc/systemd/system/multi-user.target.wants/{unit}.service").exists():
            found.append(
                Finding(
                    f"Debian's {unit} service",
                    good=False,
                    found="starts at boot on the port that ours takes; ours then takes the next free one",
                    remedy=f"sudo systemctl disable --now {unit}",
                )
            )
    return found
