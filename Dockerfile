# syntax=docker/dockerfile:1.7
# The worker's image. No weights inside but the bundled demonstration checkpoint, which is part of
# the package.
#
#   docker build -t moderation-worker:0.1.0 .
#       one image for CPUs and NVIDIA GPUs: the torch of the default index brings its CUDA libraries
#   docker build --build-arg TORCH_INDEX_URL=<index of CPU builds> -t moderation-worker:0.1.0-cpu .
#       smaller, CPU only
#   docker build --build-arg BASE_IMAGE=nvidia/cuda:13.0.1-runtime-ubuntu24.04 -t ...:0.1.0-cuda .
#       on a CUDA base (Python 3.12 comes from its distribution)
ARG BASE_IMAGE=python:3.12-slim-bookworm

FROM ${BASE_IMAGE} AS base
SHELL ["/bin/sh", "-eu", "-c"]
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# Only a base without Python needs one. Versions are those of the pinned base's distribution.
# hadolint ignore=DL3008
RUN if ! command -v python3 >/dev/null; then \
      apt-get update; \
      apt-get install --yes --no-install-recommends python3 python3-venv; \
      rm -rf /var/lib/apt/lists/*; \
    fi; \
    groupadd --gid 10001 worker; \
    useradd --uid 10001 --gid worker --no-create-home --home-dir /tmp --shell /usr/sbin/nologin worker

FROM base AS build
ARG TORCH_INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PATH=/opt/worker/bin:${PATH}
WORKDIR /src
RUN python3 -m venv /opt/worker
# The heavy, rarely changing layer first: torch alone, at the version of constraints.txt.
COPY constraints.txt ./
RUN pip install --constraint constraints.txt ${TORCH_INDEX_URL:+--index-url "${TORCH_INDEX_URL}"} torch
COPY pyproject.toml README.md LICENSE ./
COPY policies ./policies
COPY worker ./worker
RUN pip install --constraint constraints.txt .

# For trying out alone: the demonstration's script and pictures, which production does not install.
#   docker build --target tools -t moderation-worker-tools:0.1.0 .
FROM build AS build-tools
COPY tools ./tools
RUN pip install --constraint constraints.txt ./tools

FROM base AS tools
ENV PATH=/opt/worker/bin:${PATH} \
    HOME=/tmp
COPY --from=build-tools /opt/worker /opt/worker
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["moderation-worker"]

FROM base AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="moderation-worker" \
      org.opencontainers.image.description="Kafka events in, exactly one moderation verdict each out" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/worker/bin:${PATH} \
    HOME=/tmp \
    HF_HUB_OFFLINE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build /opt/worker /opt/worker
COPY policies /policies
COPY --chmod=0555 deploy/probe.py /opt/worker/bin/moderation-worker-probe
COPY --chmod=0555 deploy/fetch_model.py /opt/worker/bin/moderation-worker-fetch-model
USER 10001:10001
WORKDIR /tmp
EXPOSE 6066
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
  CMD ["moderation-worker-probe", "/healthz"]
# Exec form: the worker is process 1, gets SIGTERM, drains and exits 0.
ENTRYPOINT ["moderation-worker"]
CMD ["run", "--config", "/etc/moderation-worker/worker.yaml"]
