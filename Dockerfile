# The gateway in a container: unprivileged, fit for a read-only root, without a shell at run time.
#
#   docker build --tag dragoman .                                     chat-completions servers
#   docker build --tag dragoman:extras --build-arg LOCK=extras .      Triton, exact token counts, PDFs and traces too
#   docker run --read-only --volume dragoman:/state --publish 8080:8080 --env DRAGOMAN_API_KEYS dragoman \
#       serve --backend http://gpu-host:8000/v1
#
# Every package is installed by the hash in a lock file, and /opt/dragoman/sbom.cdx.json lists them (CycloneDX). The base
# image is the operator's choice, because a digest would keep its security updates out: to pin or mirror it,
# --build-arg PYTHON_IMAGE=mirror.example/python:3.13-slim@sha256:…

ARG PYTHON_IMAGE=python:3.13-slim

# ---------------------------------------------------------------------------------------------------------------- build
FROM ${PYTHON_IMAGE} AS build

# core or extras: requirements/core.txt, requirements/extras.txt
ARG LOCK=core

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_NO_INPUT=1 \
    PIP_ROOT_USER_ACTION=ignore

WORKDIR /build

# What builds the package stays in this stage; the environment that is shipped has not even an installer.
COPY requirements/build.txt requirements/sbom.txt requirements/core.txt requirements/extras.txt requirements/
RUN python -m venv /build/tools \
    && /build/tools/bin/python -m pip install --require-hashes --only-binary=:all: --requirement requirements/build.txt \
    && python -m venv --without-pip /opt/dragoman \
    && /build/tools/bin/python -m pip --python /opt/dragoman/bin/python install --require-hashes --only-binary=:all: \
       --requirement "requirements/${LOCK}.txt" \
    && python -m venv /build/sbom \
    && /build/sbom/bin/python -m pip install --require-hashes --only-binary=:all: --requirement requirements/sbom.txt

COPY requirements/sbom.py requirements/package_metadata.py requirements/
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
COPY translators translators
COPY backends backends
COPY configs/gateway.yaml configs/gateway.schema.json configs/
COPY configs/codex configs/codex
COPY configs/claude-code configs/claude-code
RUN /build/tools/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && /build/tools/bin/python -m pip --python /opt/dragoman/bin/python install --no-deps --no-index dist/*.whl \
    && /opt/dragoman/bin/python -I -m dragoman --version \
    && /build/sbom/bin/python requirements/sbom.py "requirements/${LOCK}.txt" /opt/dragoman/bin/python \
       /opt/dragoman/sbom.cdx.json \
    && mkdir -p /build/state

# ------------------------------------------------------------------------------------------------------------------ run
FROM ${PYTHON_IMAGE}

LABEL org.opencontainers.image.title="dragoman" \
      org.opencontainers.image.description="A gateway between agents and GPU model servers" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"

COPY --from=build /opt/dragoman /opt/dragoman
COPY --from=build --chown=65532:65532 /build/state /state

# A container that only its own loopback reaches is of no use; without client keys the gateway refuses to start so.
ENV DRAGOMAN_HOST=0.0.0.0 \
    DRAGOMAN_PORT=8080 \
    XDG_STATE_HOME=/state

# The only place that is written to. With a read-only root: a volume, or a tmpfs.
VOLUME ["/state"]

USER 65532:65532
WORKDIR /state
EXPOSE 8080
STOPSIGNAL SIGTERM

# Whether the process answers; whether a model server does is what /readyz tells.
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 \
    CMD ["/opt/dragoman/bin/python", "-I", "-c", "import http.client, os, sys; e = os.environ.get; h = '::1' if ':' in e('DRAGOMAN_HOST', '') else '127.0.0.1'; c = http.client.HTTPConnection(h, int(e('DRAGOMAN_PORT') or 8080), timeout=4); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]

ENTRYPOINT ["/opt/dragoman/bin/python", "-I", "-m", "dragoman"]
CMD ["serve"]
