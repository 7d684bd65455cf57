"""The commands behind the Makefile: `python -m native COMMAND`. The virtual environment is the Makefile's affair."""

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

import httpx
from rich.console import Console

from native import doctor, report, stack
from native.client import Client
from native.kafka import speaks_kafka
from native.launcher import Launcher
from native.settings import ROOT, NativeSettings, load
from native.supervisor import Supervisor
from shared.errors import ConfigurationError, SluiceError

_LOOK_SECONDS = 1.0  # how often `run` looks whether all is still there


class Interrupted(BaseException):
    """The user, the terminal or the system wants us to end. No Exception: nothing may take it for a failure."""


def run(settings: NativeSettings, console: Console, _: argparse.Namespace) -> int:
    """Start everything, ingest logs.json if the store is empty, show the summary, and run until Ctrl-C."""
    launcher = Launcher(settings, console)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    interrupted = False
    try:
        _bring_up(launcher)
        _show(launcher)
        console.print("Ctrl-C stops everything.")
        while launcher.supervisor.running():
            time.sleep(_LOOK_SECONDS)
            if console.is_terminal and not os.isatty(sys.stdout.fileno()):
                # Hung up, and nobody told us: only the session's leader is sent SIGHUP, and that was make.
                _interrupt(signal.SIGHUP, None)
        console.print("The supervisor has ended: stopped from elsewhere, or dead.")
    except Interrupted:
        console.print("\nStopping, in the order of the flow.")
        interrupted = True
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        left = launcher.stop()
    console.print("Nothing is left running.")
    return 0 if interrupted or not left else 1


def up(settings: NativeSettings, console: Console, _: argparse.Namespace) -> int:
    """Start everything in the background. Ingests nothing; harmless when all is up."""
    launcher = Launcher(settings, console)
    if not _bring_up(launcher):
        console.print("Everything was up already.")
    console.print(report.addresses(launcher.settings))
    return 0


def down(settings: NativeSettings, console: Console, _: argparse.Namespace) -> int:
    """Stop everything, in the order of the flow. Harmless when all is down."""
    console.print("Stopped." if Launcher(settings, console).stop() else "Nothing was running.")
    return 0


def prepare(settings: NativeSettings, console: Console, _: argparse.Namespace) -> int:
    """Fetch Kafka's jars and see that all prerequisites are there."""
    Launcher(settings, console).prepare()
    return 0


def ingest(settings: NativeSettings, console: Console, arguments: argparse.Namespace) -> int:
    """Ingest logs.json, or another file of the ingest folder, and show the receipt when it has drained."""
    with Client(settings) as client:
        _ingest(client, console, arguments.file)
    return 0


def summary(settings: NativeSettings, console: Console, _: argparse.Namespace) -> int:
    """Show the summary of all that is stored."""
    with Client(settings) as client:
        _print_summary(client, console)
    return 0


def health(settings: NativeSettings, console: Console, _: argparse.Namespace) -> int:
    """Show the health of every part; exit code 1 unless all is healthy."""
    rows = [(service, *_service_health(settings, service)) for service in settings.service_ports]
    if settings.own_kafka:
        answers = speaks_kafka("127.0.0.1", settings.kafka_port)
        rows.append(
            ("kafka", "healthy" if answers else "unhealthy", "" if answers else f"no answer: {settings.bootstrap}")
        )
    launcher = Launcher(settings, console)
    for program in stack.programs(settings):
        if program.name not in {"kafka", *settings.service_ports}:
            problem = launcher.not_ready(program)
            rows.append((program.name, "unhealthy" if problem else "healthy", problem or ""))
    console.print(report.health(rows))
    return 0 if all(status == "healthy" for _, status, _ in rows) else 1


def status(settings: NativeSettings, console: Console, _: argparse.Namespace) -> int:
    """Show what the supervisor has running."""
    found = Launcher(settings, console).supervisor.states()
    console.print(report.states(found) if found else "Nothing is running; `make up` or `make run` starts it.")
    return 0


def logs(settings: NativeSettings, console: Console, arguments: argparse.Namespace) -> int:
    """Follow the logs of all programs, or of one."""
    supervisor = Launcher(settings, console).supervisor
    names = [arguments.program] if arguments.program else [program.name for program in stack.programs(settings)]
    paths = [str(path) for name in names if (path := supervisor.log(name)).exists()]
    if not paths:
        console.print(f"There are no logs in {supervisor.logs} yet.")
        return 1
    return _become("tail", "-n", "50", "-F", *paths)


def openapi(settings: NativeSettings, console: Console, _: argparse.Namespace) -> int:
    """Write the running services' OpenAPI documents into docs/openapi."""
    folder = ROOT / "docs" / "openapi"
    folder.mkdir(parents=True, exist_ok=True)
    with Client(settings) as client:
        for service in settings.service_ports:
            path = folder / f"{service}.json"
            path.write_text(json.dumps(client.get(service, "/openapi.json"), indent=2, ensure_ascii=False) + "\n")
            console.print(f"Wrote {path.relative_to(ROOT)}")
    return 0


def clean(settings: NativeSettings, console: Console, _: argparse.Namespace) -> int:
    """Stop everything, then delete all data, jars and logs of this checkout."""
    launcher = Launcher(settings, console)
    launcher.stop()
    launcher.clean()
    return 0


def examine(settings: NativeSettings, console: Console, _: argparse.Namespace) -> int:
    """Examine the machine: ports, versions, disk, memory, leftovers; exit code 1 if something needs a remedy."""
    findings = doctor.examine(settings)
    console.print(doctor.table(findings))
    return 0 if all(finding.good for finding in findings) else 1


def rebuild(settings: NativeSettings, console: Console, arguments: argparse.Namespace) -> int:
    """Build the store anew from the topics, beside the one that is read; what it would lose has to be confirmed."""
    with Client(settings) as client:
        found = client.rebuild(confirm=arguments.confirm)
        epoch = found["epoch"]
        with console.status("Rebuilding ...") as shown:
            while found["epoch"] == epoch and found["running"]:
                shown.update(f"Rebuilding ... {found['rebuilt']} records; there are {found['records']}")
                time.sleep(_LOOK_SECONDS)
                found = client.get("processing", "/store/rebuild")
    console.print(f"Rebuilt: {found['records']} records, epoch {found['epoch']}.")
    return 0


def backup(settings: NativeSettings, console: Console, arguments: argparse.Namespace) -> int:
    """Save the store and the state topics into a folder, while all is running."""
    target = Path(arguments.folder)
    if target.exists():
        raise ConfigurationError(f"{target} is there already: a backup goes into a folder of its own")
    with Client(settings) as client:
        made = client.back_up()
    shutil.move(made["folder"], target)
    console.print(f"{target}: {made['records']} records, {made['state']} keys of state, as of {made['time']}.")
    return 0


def restore(settings: NativeSettings, console: Console, arguments: argparse.Namespace) -> int:
    """Start everything with a backup in it. The stack is down before, and its store empty."""
    launcher = Launcher(settings, console)
    launcher.prepare()
    launcher.start(between=("Restoring", ("processing.restore", str(Path(arguments.folder).resolve()))))
    console.print(report.addresses(launcher.settings))
    return 0


def grow(settings: NativeSettings, console: Console, arguments: argparse.Namespace) -> int:
    """Give every topic more partitions: drain, stop, move all state, start again. Run it again if it was cut off."""
    if settings.partitions != arguments.partitions:
        raise ConfigurationError(
            f"PARTITIONS is {settings.partitions}: set it to {arguments.partitions} in .env first, "
            "for every start from now on needs it"
        )
    launcher = Launcher(settings, console)
    if launcher.supervisor.running():
        launcher.supervisor.stop_program("ingestion")
        launcher.step("Waiting until all is processed", "shared.partitions", "wait")
        launcher.stop()
    launcher.prepare()
    launcher.start(between=("Growing", ("shared.partitions", str(arguments.partitions))))
    return 0


COMMANDS: dict[str, Callable[[NativeSettings, Console, argparse.Namespace], int]] = {
    "run": run,
    "up": up,
    "down": down,
    "prepare": prepare,
    "ingest": ingest,
    "summary": summary,
    "health": health,
    "status": status,
    "logs": logs,
    "openapi": openapi,
    "clean": clean,
    "rebuild": rebuild,
    "backup": backup,
    "restore": restore,
    "grow": grow,
    "doctor": examine,
}


def main() -> int:
    arguments = _parser().parse_args()
    os.chdir(ROOT)  # relative settings, .env among them, are relative to the checkout
    console = report.console()
    try:
        settings = load()
        if Supervisor(stack.run_folder(settings)).running():
            settings = settings.as_running()
        return COMMANDS[arguments.command](settings, console, arguments)
    except SluiceError as error:
        console.print(f"[red]✗[/red] {arguments.command}:", end=" ")
        console.print(str(error), markup=False)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m native", description="The stack on this machine, without containers."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        each = commands.add_parser(name, help=command.__doc__, description=command.__doc__)
        if name == "ingest":
            each.add_argument("file", nargs="?", help="a file of the ingest folder (default: logs.json)")
        if name == "rebuild":
            each.add_argument("--confirm", action="store_true", help="lose what the topics don't hold any more")
        if name in {"backup", "restore"}:
            each.add_argument("folder", help="where the backup is, or is to be")
        if name == "grow":
            each.add_argument("partitions", type=int, help="how many there are to be")
        if name == "logs":
            each.add_argument("program", nargs="?", help="only this one's")
    return parser


def _become(*command: str) -> NoReturn:
    """Be this program from now on, so that whatever ends us ends it."""
    os.execvp(command[0], command)  # noqa: S606 - no shell is wanted


def _interrupt(number: int, _: FrameType | None) -> None:
    if number == signal.SIGHUP:  # the terminal is gone, and with it the place to write to
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.dup2(nowhere, sys.stderr.fileno())
    raise Interrupted


def _bring_up(launcher: Launcher) -> bool:
    launcher.prepare()
    return launcher.start()


def _show(launcher: Launcher) -> None:
    """Ingest logs.json if nothing is stored yet, then show all there is to see."""
    console = launcher.console
    with Client(launcher.settings) as client:
        if client.summary()["total"] == 0:
            _ingest(client, console, None)
        else:
            console.print("Nothing was ingested, for the store has entries already. The newest run of before:")
            for newest in client.get("ingestion", "/ingest/runs", limit=1)["runs"]:
                console.print(report.receipt(newest))
        _print_summary(client, console)
    console.print(report.addresses(launcher.settings))


def _ingest(client: Client, console: Console, file: str | None) -> None:
    run_id = client.trigger(file)["run_id"]
    with console.status(f"Waiting until run {run_id} has drained ..."):
        receipt = client.wait_until_drained(run_id)
    console.print(report.receipt(receipt))


def _print_summary(client: Client, console: Console) -> None:
    console.print(report.summary(client.summary(), client.get("processing", "/analytics/anomalies")))


def _service_health(settings: NativeSettings, service: str) -> tuple[str, str]:
    try:
        found = httpx.get(settings.url(service) + "/health", timeout=5.0).json()
    except (httpx.TransportError, ValueError) as error:
        return "unhealthy", f"no answer at {settings.url(service)}: {error}"
    return str(found["status"]), "; ".join(found["problems"])


if __name__ == "__main__":
    sys.exit(main())
