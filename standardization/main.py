"""Standardization, wired.

raw-logs > [stage loop: frames > entries > records] > standardized-logs, dead-letters
"""

from shared import kafka, metrics
from shared.config import Settings
from shared.errors import Reason
from shared.instance import Instance
from shared.service import Loop, Part, Service, main
from shared.spool import Spool
from shared.stage import Stage
from shared.survey import Survey
from shared.topics import DEAD_LETTERS, RAW_LOGS, STANDARDIZATION_STATE, STANDARDIZED_LOGS
from standardization import api
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
    standardization = Standardization(settings)
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
    parts: list[Part] = [watch, Loop(survey.name, survey.run, list), Loop(STAGE, stage.run, stage.problems)]
    return Service(
        NAME, settings, settings.standardization_port, parts, [api.router(standardization.templates)], __doc__ or ""
    )


if __name__ == "__main__":
    main(NAME, build)
