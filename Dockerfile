FROM python:3.13-slim AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# The image needs no pip, so install into the environment with the pip outside of it.
RUN python -m venv --without-pip /venv
ENV PIP_PYTHON=/venv/bin/python
WORKDIR /build
# Copied before the code, so that a code change reuses the layer of the dependencies.
COPY requirements-all.lock ./
RUN pip install --no-compile --require-hashes -r requirements-all.lock
COPY pyproject.toml openapi.yaml README.md LICENSE ./
COPY handlers handlers
COPY models models
COPY tests/contract tests/contract
# Without isolation, to use the locked build tools instead of their newest versions.
RUN pip wheel --no-deps --no-build-isolation -w dist . \
    && pip install --no-compile --no-deps dist/*.whl \
    && pip uninstall --yes hatchling editables \
    && pip check
# Hash-based bytecode stays valid even if copying layers changes the timestamps of files.
RUN /venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /venv/lib

FROM python:3.13-slim
COPY --from=builder /venv /venv
# It listens on every address, so it does not start without an API key: see docs/containers.md.
ENV PATH="/venv/bin:$PATH" \
    PYTHONDONTWRITEBYTECODE=1 \
    DATABASE_URL=sqlite:////data/tasks.db \
    TASKS_API_HOST=0.0.0.0
# The base image has no bytecode of the standard library. Compile the modules that the service and the health check use
# once, here, instead of at every start.
RUN PYTHONDONTWRITEBYTECODE= python -c "import handlers.cli, http.client; from handlers.commands import database, keys, service" \
    && install --directory --owner=10001 --group=10001 --mode=700 /data
# A numeric id, so that an orchestrator can verify that it is not root.
USER 10001:10001
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
# Without the service's own modules, which take ten times as long to load. On Linux, 0.0.0.0 and :: lead to this machine.
# Kubernetes may set TASKS_API_PORT to an address, such as tcp://10.0.0.1:8000, which the service ignores.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --start-interval=1s --retries=3 \
    CMD ["python", "-c", "from os import environ as e; from http.client import HTTPConnection; ports = (e.get('TASKS_API_PORT', ''), e.get('PORT', ''), '8000'); c = HTTPConnection(e['TASKS_API_HOST'].strip(), next(p for p in map(str.strip, ports) if p.isdigit()), timeout=4); c.request('GET', '/health/ready'); exit(c.getresponse().status != 200)"]
ENTRYPOINT ["tasks-api"]
CMD ["serve"]
