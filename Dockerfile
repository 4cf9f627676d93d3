FROM python:3.13-slim AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# The environment serves and never installs, so pip stays outside and works on it from there.
RUN python -m venv --without-pip /venv
ENV PIP_PYTHON=/venv/bin/python
WORKDIR /build
# Before the code, so that a change of it does not install everything again.
COPY requirements.lock ./
RUN pip install --no-compile --require-hashes -r requirements.lock
COPY pyproject.toml openapi.yaml README.md LICENSE ./
COPY handlers handlers
COPY models models
COPY tests/contract tests/contract
# With the build tools of the lock, which an isolated build would fetch in whatever version is new.
RUN pip wheel --no-deps --no-build-isolation -w dist . \
    && pip install --no-compile --no-deps dist/*.whl \
    && pip uninstall --yes hatchling editables \
    && pip check
# Bytecode that does not depend on the times of files, which copies of layers need not keep.
RUN /venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /venv/lib

FROM python:3.13-slim
COPY --from=builder /venv /venv
# It listens on every address, so it refuses to start until there is a key; the README says how to make one.
ENV PATH="/venv/bin:$PATH" \
    PYTHONDONTWRITEBYTECODE=1 \
    DATABASE_URL=sqlite:////data/tasks.db \
    TASKS_API_HOST=0.0.0.0
# The base image has no bytecode of the standard library: what the service and its health check use of it is compiled
# once, here, and not at every start.
RUN PYTHONDONTWRITEBYTECODE= python -c "import handlers.application, handlers.cli, urllib.request" \
    && install --directory --owner=10001 --group=10001 --mode=700 /data
# A number, so that an orchestrator can see that it is not root.
USER 10001:10001
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
# Past any proxy that the environment names, which urlopen would ask.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --start-interval=1s --retries=3 \
    CMD ["python", "-c", "from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:8000/health/ready', timeout=4)"]
ENTRYPOINT ["tasks-api"]
CMD ["serve"]
