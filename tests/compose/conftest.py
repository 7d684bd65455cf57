"""The compose stack that all these tests share: built, started, and taken away at the end.

They need a Docker engine with Compose; where there is none they say so and fail.
"""

from collections.abc import Generator, Iterator

import httpx
import pytest

from native.client import Client
from tests.compose.engine import ComposeStack, missing


@pytest.fixture(scope="session")
def stack() -> Iterator[ComposeStack]:
    if why := missing():
        pytest.exit(f"the compose stack can't be tested: {why}", returncode=1)
    made = ComposeStack()
    made.build()
    if made.left_out:
        print(f"\nleft out, for their images can't be had here: {', '.join(made.left_out)}")  # noqa: T201
    try:
        made.first_start = made.up()
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="session")
def client(stack: ComposeStack) -> Iterator[Client]:
    with Client(stack.settings) as made:
        yield made


@pytest.fixture(scope="session")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=60.0) as made:
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where a test failed, what the containers said goes with its report."""
    report = yield
    made = getattr(item, "funcargs", {}).get("stack")
    if report.failed and isinstance(made, ComposeStack):
        report.sections.append(("containers", made.account()))
    return report
