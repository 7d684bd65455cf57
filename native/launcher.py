"""Start, wait, stop: the order in which the stack comes up and goes down, and what is said about it meanwhile."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import httpx
from rich.console import Console
from rich.markup import escape

from native import machine, prerequisites, stack
from native.kafka import jars_ready, prepare_jars, speaks_kafka
from native.settings import MOVABLE, ROOT, NativeSettings
from native.supervisor import Supervisor
from shared.errors import ConfigurationError, SluiceError

_STARTS_BEFORE_GIVING_UP = 3  # a program that ended as often before it was ready won't become ready


Module = tuple[str, tuple[str, ...]]
"""What it does, and the module with its arguments."""


class NotReadyError(SluiceError):
    """A program did not become ready; the message says which, why, and where its log is."""


class Launcher:
    """The stack of one run folder. Everything it says goes to `console`."""

    def __init__(self, settings: NativeSettings, console: Console) -> None:
        self.settings = settings
        self.console = console
        self.supervisor = Supervisor(stack.run_folder(settings))
        self._child: subprocess.Popen[bytes] | None = None  # supervisord, where this process started it

    # preparation

    def prepare(self) -> None:
        """See that all prerequisites are there and that Kafka's jars are fetched. Raises ConfigurationError."""
        needed = ["prometheus", "alertmanager", *(["java", "maven"] if self.settings.own_kafka else [])]
        if prerequisites.main(needed):
            raise ConfigurationError("a prerequisite is missing (see above)")
        if self.settings.own_kafka and not jars_ready(stack.libs(self.settings)):
            with self._step("Fetching Kafka's jars") as say:
                prepare_jars(stack.libs(self.settings), say)

    def check_ports(self) -> None:
        """Raise ConfigurationError if any port of ours is held by somebody else; names holder and remedy."""
        if taken := machine.taken(stack.ports(self.settings)):
            raise ConfigurationError("\n".join(["nothing was started:", *(f"  {each}" for each in taken)]))

    def _give_way(self) -> None:
        """Debian's packages run a Prometheus on 9090 and an Alertmanager on 9093. Unless the user chose that port, ours
        takes another."""
        for program in MOVABLE:
            self.settings = self.settings.on_port(program, self._port_for(program))

    def _port_for(self, program: str) -> int:
        ours = stack.ports(self.settings)
        wanted = next(port for port in ours if port.program == program)
        if wanted.setting.lower() in self.settings.model_fields_set or not machine.taken([wanted]):
            return wanted.number
        others = {port.number for port in ours}
        for number in range(wanted.number + 1, wanted.number + 10):
            if number not in others and not machine.taken([replace(wanted, number=number)]):
                self.console.print(
                    f"[yellow]![/yellow] port {wanted.number} is taken by {escape(machine.holder_of(wanted.number))}; "
                    f"our {program.capitalize()} takes {number} ({wanted.setting} chooses another)"
                )
                return number
        return wanted.number

    # start

    def start(self, between: Module | None = None) -> bool:
        """Bring everything up and wait until it is ready. False if it was up already. Raises SluiceError.

        `between`, a program of ours, is run when Kafka is there and before anything else; nothing may be up then. If
        all this can't be, or the user interrupts it, what has been started is stopped again.
        """
        with self.supervisor.starting():
            if self.supervisor.running():
                if between is not None:
                    raise ConfigurationError("the stack is running: stop it first (make down)")
                self._wait_until_ready([program.name for program in stack.programs(self.settings)])
                return False
            self.stop_leftovers()
            self._give_way()
            self.check_ports()
            try:
                self._start_in_order(between)
            except BaseException:
                self.stop()
                raise
        return True

    def _start_in_order(self, between: Module | None) -> None:
        stack.write_monitoring_files(self.settings)
        if self.settings.own_kafka:
            stack.broker(self.settings).prepare()
        programs = stack.programs(self.settings)
        self._child = self.supervisor.start(programs, stack.environment(self.settings))
        if self.settings.own_kafka:
            with self._step("Kafka"):
                self.supervisor.start_program("kafka")
                self._wait_until_ready(["kafka"])
        if between is not None:
            what, command = between
            self.step(what, *command)
        self.step("Topics", "shared.kafka")
        rest = [program.name for program in programs if program.name != "kafka"]
        with self._step("Services, Prometheus and Alertmanager" + (" and Grafana" if "grafana" in rest else "")):
            for name in rest:
                self.supervisor.start_program(name)
            self._wait_until_ready(rest)
        if "grafana" not in rest:
            self.console.print(
                "[dim]- No Grafana is installed here, so none is started; the dashboards wait for one.[/dim]"
            )

    def step(self, what: str, *module: str) -> None:
        """Run a program of ours to its end, with the services' settings. Raises NotReadyError with what it said."""
        with self._step(what):
            done = subprocess.run(
                [sys.executable, "-m", *module],
                cwd=ROOT, env=stack.environment(self.settings), capture_output=True, text=True, check=False,
            )  # fmt: skip
        if done.returncode:
            raise NotReadyError(f"{what} failed:\n{done.stdout}{done.stderr}")

    def _wait_until_ready(self, names: Sequence[str]) -> None:
        """Wait until all of these are ready. Raises NotReadyError when one ends again and again, or time is up."""
        waiting = [program for program in stack.programs(self.settings) if program.name in names]
        reasons: dict[str, str] = {}
        pids: dict[str, set[int]] = {program.name: set() for program in waiting}
        deadline = time.monotonic() + self.settings.start_seconds
        while True:
            for state in self.supervisor.states():
                if state.name in pids and state.pid:
                    pids[state.name].add(state.pid)
            for program in waiting[:]:
                reason = self.not_ready(program)
                if reason is None:
                    waiting.remove(program)
                else:
                    reasons[program.name] = reason
            if not waiting:
                return
            failing = next((p.name for p in waiting if len(pids[p.name]) > _STARTS_BEFORE_GIVING_UP), None)
            if failing is not None:
                raise NotReadyError(self._account(failing, "ends as soon as it is started"))
            if time.monotonic() > deadline:
                late = waiting[0].name
                seconds = self.settings.start_seconds
                raise NotReadyError(self._account(late, f"is not ready after {seconds:.0f} s ({reasons[late]})"))
            time.sleep(0.1)

    def not_ready(self, program: stack.Program) -> str | None:
        """Why this program is not ready; None when it is."""
        if not program.ready_url:
            ready = speaks_kafka("127.0.0.1", self.settings.kafka_port)
            return None if ready else f"no answer on port {self.settings.kafka_port}"
        try:
            answer = httpx.get(program.ready_url, timeout=5.0)
        except httpx.TransportError as error:
            return f"no answer from {program.ready_url}: {error}"
        if answer.status_code == httpx.codes.OK:
            return None
        return answer.text.strip()[:500]

    def _account(self, name: str, what: str) -> str:
        log = self.supervisor.log(name)
        lines = log.read_text(errors="replace").splitlines()[-15:] if log.exists() else []
        return "\n".join([f"{name} {what}. The end of {log}:", *(f"  {line}" for line in lines)])

    # stop

    def stop(self) -> bool:
        """Stop all in the order of the flow, sources first and Kafka last. False if nothing was running."""
        was_running = self.supervisor.running()
        if was_running:
            alive = {state.name for state in self.supervisor.states() if state.pid}
            for name in reversed([program.name for program in stack.programs(self.settings)]):
                if name in alive:
                    with self._step(f"Stopping {name}"):
                        self.supervisor.stop_program(name)
            self.supervisor.shut_down()
        if self._child is not None:
            self._child.wait()
        return self.stop_leftovers() or was_running

    def stop_leftovers(self) -> bool:
        """End processes whose supervisor is gone. True if there were any."""
        left = machine.leftovers(self.supervisor.folder)
        for process in left:
            with self._step(f"Stopping {machine.program_of(process)} ({process.pid}), left by an earlier run"):
                machine.stop([process], self.settings.stop_seconds)
        return bool(left)

    def clean(self) -> None:
        """Delete data, jars and logs: only names that are ours, whatever the folders are set to."""
        for folder, names in (
            (self.settings.data_dir, ("kafka", "prometheus", "alertmanager", "grafana", *self.settings.service_ports)),
            (self.supervisor.folder, ("kafka", "prometheus", "logs")),
        ):
            for name in names:
                if (folder / name).exists():
                    self.console.print(f"Deleting {folder / name}")
                    shutil.rmtree(folder / name)
            for name in (
                "supervisord.conf",
                "supervisord.pid",
                "grafana.ini",
                "lock",
                *(f"{each}.port" for each in MOVABLE),
            ):
                (folder / name).unlink(missing_ok=True)
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    @contextmanager
    def _step(self, what: str) -> Iterator[Callable[[str], None]]:
        begun = time.monotonic()
        with self.console.status(f"{what} ...") as status:
            yield lambda line: status.update(f"{what} ... [dim]{escape(line[:100])}[/dim]")
        self.console.print(f"[green]✓[/green] {what} [dim]({time.monotonic() - begun:.1f} s)[/dim]")
