"""Writes the dashboards: `make dashboards`, and `python -m grafana.build --check` says whether they are up to date.

prometheus/rules > thresholds, runbook + overview, sources, pipeline, fleet > grafana/dashboards/*.json
"""

import argparse
import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana import fleet, overview, pipeline, rules, sources
from grafana.rules import DASHBOARDS


def documents() -> dict[str, str]:
    """The content of each file of grafana/dashboards/, by its name."""
    alerts = rules.Alerts(rules.load())
    built = {module.UID: module.build(alerts) for module in (overview, sources, pipeline, fleet)}
    return {
        f"{uid}.json": json.dumps(made, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        for uid, made in built.items()
    }


def drift(folder: Path = DASHBOARDS) -> list[str]:
    """The files that are not what would be written now, by name."""
    wanted = documents()
    there = {path.name: path.read_text() for path in folder.glob("*.json")}
    return sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m grafana.build", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is not up to date")
    if parser.parse_args().check:
        stale = drift()
        if stale:
            sys.stderr.write(f"not what grafana/build.py makes, run `make dashboards`: {', '.join(stale)}\n")
        return 1 if stale else 0
    DASHBOARDS.mkdir(exist_ok=True)
    wanted = documents()
    for path in DASHBOARDS.glob("*.json"):
        if path.name not in wanted:
            path.unlink()
    for name, document in wanted.items():
        (DASHBOARDS / name).write_text(document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
