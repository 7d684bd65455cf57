"""Standardization, wired.

raw-logs > [stage loop: frames > entries > records] > standardized-logs, dead-letters
                                    ^ mappings: a folder that is watched
"""

from pathlib import Path

from shared import kafka, metrics
from shared.config import Settings
from shared.errors import ConfigurationError, Reason
from shared.instance import Instance
from shared.service import Loop, Part, Service, main
from shared.spool import Spool
from shared.stage import Stage
from shared.survey import Survey
from shared.topics import DEAD_LETTERS, RAW_LOGS, STANDARDIZATION_STATE, STANDARDIZED_LOGS
from standardization import api, preview
from standardization.mappings_folder import MappingsFolder
from standardization.redaction import Redaction, Rule, custom_rules, groups_of, names
from standardization.texts import FORMATS
from standardization.transform import STAGE, Standardization

NAME = "standardization"


def build(settings: Settings) -> Service:
    instance = Instance(settings.folder(NAME), settings.copies)
    spool = Spool(instance.folder / "spool", settings.spool_max_bytes)
    metrics.SPOOL_BYTES.labels(NAME).set_function(lambda: spool.used)
    metrics.SPOOL_QUOTA.labels(NAME).set(settings.spool_max_bytes)
    metrics.touch(STAGE, Reason, [RAW_LOGS], [STANDARDIZED_LOGS, DEAD_LETTERS])
    metrics.PROCESSING_DURATION.labels(STAGE)
    for form in FORMATS:
        metrics.TEXT_ENTRIES.labels(form)
    standardization = Standardization(settings, _redaction(settings))
    mappings = MappingsFolder(settings.mappings_dir, standardization.use)
    routers = [
        api.router(standardization.templates, active=lambda: mappings.active),
        preview.router(settings, _redaction(settings), active=lambda: mappings.active.mappings),
    ]
    watch = kafka.Watch(settings, NAME)
    survey = Survey(settings, NAME, lambda: watch.reachable)
    stage = Stage(
        STAGE,
        settings,
        reads=RAW_LOGS,
        writes=[STANDARDIZED_LOGS],
        state=STANDARDIZATION_STATE,
        transform=standardization,
        instance_id=instance.id,
        spool=spool,
    )
    parts: list[Part] = [
        watch,
        Loop(survey.name, survey.run, list),
        Loop("mappings", mappings.watch, list),
        Loop(STAGE, stage.run, stage.problems),
    ]
    port = settings.standardization_port
    return Service(NAME, settings, port, parts, routers, __doc__ or "", remarks=mappings.remarks)


def _redaction(settings: Settings) -> Redaction | None:
    """Redaction as the settings have it; None where there is none. Raises ConfigurationError."""
    custom: list[Rule] = []
    if settings.redact_file:
        try:
            custom = custom_rules(Path(settings.redact_file).read_text(encoding="utf-8"), settings.redact_file)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"REDACT_FILE: can't be read: {error}") from None
    groups = groups_of(settings.redact)
    for rule in names(groups, custom):
        metrics.REDACTIONS.labels(rule)
    return Redaction(groups, custom) if groups or custom else None


if __name__ == "__main__":
    main(NAME, build)
