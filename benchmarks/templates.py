"""How well and how fast free text gets its templates: LogHub's samples, one configuration for all systems.

Grouping accuracy as LogPAI's benchmark computes it: the share of lines whose group holds exactly the lines that the
sample's authors gave the same event. `as recorded` takes the ids that the records carry the moment they are written;
`accuracy` folds former ids into the template that has them, as GET /standardization/templates lists them.
"""

import argparse
import csv
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from standardization.masking import Masking
from standardization.templates import Templates

FOLDER = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "loghub"


def grouping_accuracy(expected: Sequence[str], found: Sequence[str]) -> float:
    """The share of lines whose group is exactly the expected one."""
    groups: dict[str, set[int]] = {}
    events: dict[str, set[int]] = {}
    for line, (event, group) in enumerate(zip(expected, found, strict=True)):
        events.setdefault(event, set()).add(line)
        groups.setdefault(group, set()).add(line)
    right = sum(len(lines) for lines in groups.values() if events[expected[min(lines)]] == lines)
    return right / len(expected)


class Sample:
    """The lines of one system and their events."""

    def __init__(self, file: Path) -> None:
        with file.open(newline="", encoding="utf-8") as rows:
            read = list(csv.DictReader(rows))
        self.name = file.parent.name
        self.lines = [row["Content"] for row in read]
        self.events = [row["EventId"] for row in read]

    def measure(self) -> tuple[float, float, float, int]:
        """Accuracy, accuracy as recorded, seconds of CPU and the number of templates."""
        templates = Templates(Masking())
        begun = time.process_time()
        recorded = [templates.see(line, 1).template_id for line in self.lines]
        seconds = time.process_time() - begun
        now = {
            template_id: template.template_id
            for template, _ in templates.listed()
            for template_id in [*template.former_ids, template.template_id]
        }
        final = [now[template_id] for template_id in recorded]
        return (
            grouping_accuracy(self.events, final),
            grouping_accuracy(self.events, recorded),
            seconds,
            len(set(final)),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", nargs="?", type=Path, default=FOLDER, help="holds System/System_2k.log_structured.csv"
    )
    folder = parser.parse_args().folder
    samples = [Sample(file) for file in sorted(folder.glob("*/*_structured.csv"))]
    if not samples:
        sys.exit(
            f"No samples in {folder.resolve()}: each system's folder with its *_structured.csv, from LogHub "
            "(github.com/logpai/loghub), belongs there; or name another: make bench-templates DATA=folder"
        )
    print(f"{'system':<14}{'accuracy':>10}{'as recorded':>13}{'templates':>11}{'events':>8}{'lines/s':>10}")
    measured = [sample.measure() for sample in samples]
    for sample, (accuracy, recorded, seconds, templates) in zip(samples, measured, strict=True):
        speed = len(sample.lines) / seconds
        print(
            f"{sample.name:<14}{accuracy:>10.3f}{recorded:>13.3f}{templates:>11}{len(set(sample.events)):>8}"
            f"{speed:>10,.0f}"
        )
    lines = sum(len(sample.lines) for sample in samples)
    mean, mean_recorded = (sum(one[at] for one in measured) / len(measured) for at in (0, 1))
    print(f"{'mean':<14}{mean:>10.3f}{mean_recorded:>13.3f}{'':>19}{lines / sum(one[2] for one in measured):>10,.0f}")


if __name__ == "__main__":
    main()
