# One image a service: docker build --target processing .   (make docker-build builds all of them)
#
#   python ─ packages ─┬─ tools            topics are made, copies are found
#                      ├─ ingestion
#                      ├─ standardization
#                      └─ engine ─ processing
#
# Layers go from what changes rarely to what changes often, and are shared: beyond the packages that all services need,
# an image holds a few hundred kilobytes of code, and processing the engine of its store. No compiler, no test, no
# supervisor. Works with BuildKit and without. drain3, which is Python alone, is published as its source only.

FROM python:3.13-slim AS python
ENV PATH=/opt/sluice/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# /data is where a volume goes: a new one takes its owner from here
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin sluice \
    && install --directory --owner=sluice --group=sluice /data /targets
WORKDIR /app

FROM python AS packages
COPY compose/services.lock /opt/
RUN python -m venv --without-pip /opt/sluice \
    && pip --python /opt/sluice/bin/python install \
        --no-cache-dir --disable-pip-version-check --only-binary :all: --no-binary drain3 --require-hashes --no-deps \
        -r /opt/services.lock

FROM packages AS tools
COPY shared shared
COPY compose/ready.py compose/replicas.py compose/
RUN python -m compileall -q .
ENV LOG_FORMAT=json
USER sluice
CMD ["python", "-m", "shared.kafka"]

FROM packages AS ingestion
COPY logs.json /ingest/
COPY shared shared
COPY ingestion ingestion
COPY compose/ready.py compose/
RUN python -m compileall -q .
# in a container loopback is nobody's but its own: what is reachable from outside is the engine's to say
ENV HOST=0.0.0.0 DATA_DIR=/data INGEST_DIR=/ingest LOG_FORMAT=json
USER sluice
EXPOSE 8001
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s --retries=6 CMD ["python", "-IS", "compose/ready.py", "8001"]
CMD ["python", "-m", "ingestion.main"]

FROM packages AS standardization
COPY shared shared
COPY standardization standardization
COPY compose/ready.py compose/
RUN python -m compileall -q .
ENV HOST=0.0.0.0 DATA_DIR=/data LOG_FORMAT=json
USER sluice
EXPOSE 8002
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s --retries=6 CMD ["python", "-IS", "compose/ready.py", "8002"]
CMD ["python", "-m", "standardization.main"]

FROM packages AS engine
COPY compose/processing.lock /opt/
RUN pip --python /opt/sluice/bin/python install \
        --no-cache-dir --disable-pip-version-check --only-binary :all: --no-binary drain3 --require-hashes --no-deps \
        -r /opt/processing.lock

FROM engine AS processing
COPY shared shared
COPY processing processing
COPY compose/ready.py compose/
RUN python -m compileall -q .
ENV HOST=0.0.0.0 DATA_DIR=/data LOG_FORMAT=json
USER sluice
EXPOSE 8003
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s --retries=6 CMD ["python", "-IS", "compose/ready.py", "8003"]
CMD ["python", "-m", "processing.main"]
