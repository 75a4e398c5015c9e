# syntax=docker/dockerfile:1.7
# Images from the same steps as tools/install.sh: `--target cpu`, `--target gpu`, and `--target openrlhf`, which adds flash-attn to gpu.
# docs/cluster.md has the commands.
# The base is pinned by tag; pin it by digest where your registry mirrors it: --build-arg PYTHON_IMAGE=python@sha256:...
ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm
ARG CUDA_IMAGE=nvidia/cuda:13.0.1-devel-ubuntu22.04

FROM ${PYTHON_IMAGE} AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 VIRTUAL_ENV=/opt/r4t/.venv PATH=/opt/r4t/.venv/bin:$PATH
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /opt/r4t
RUN useradd --uid 10001 --user-group --create-home r4t && python -m venv .venv

# The dependencies change with the locks, the project with every commit: they are layers of their own.
FROM base AS cpu-dependencies
# vLLM for the CPU links to it, and no wheel brings it.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends libnuma1 && rm -rf /var/lib/apt/lists/*
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
COPY locks/cpu.txt locks/cpu.txt
RUN pip install -q --no-deps --index-url "$TORCH_CPU_INDEX" "$(grep '^torch==' locks/cpu.txt)"
RUN pip install -q --no-deps -r locks/cpu.txt

FROM base AS gpu-dependencies
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
# Triton compiles the launchers of its kernels where they run.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY locks/gpu.txt locks/gpu.txt
RUN pip install -q --no-deps -r locks/gpu.txt

FROM cpu-dependencies AS cpu
COPY pyproject.toml README.md LICENSE ./
COPY r4t r4t
COPY cluster cluster
COPY jobs jobs
COPY configs configs
COPY benchmarks/rates.json benchmarks/rates.json
RUN pip install -q --no-deps --no-build-isolation -e . && pip list --format=freeze >packages.txt
USER 10001:10001
CMD ["r4t", "--help"]

FROM gpu-dependencies AS gpu
COPY pyproject.toml README.md LICENSE ./
COPY r4t r4t
COPY cluster cluster
COPY jobs jobs
COPY configs configs
COPY benchmarks/rates.json benchmarks/rates.json
RUN pip install -q --no-deps --no-build-isolation -e . && pip list --format=freeze >packages.txt
USER 10001:10001
CMD ["r4t", "--help"]

FROM ${CUDA_IMAGE} AS cuda

FROM gpu-dependencies AS flash-attn
# `rl.backend: openrlhf`: OpenRLHF imports flash-attn, of which there is no wheel for this torch, so it is compiled here.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY --from=cuda /usr/local/cuda /usr/local/cuda
ARG FLASH_ATTN=2.8.3
ARG FLASH_ATTN_CUDA_ARCHS=90
ARG MAX_JOBS=4
ENV CUDA_HOME=/usr/local/cuda FLASH_ATTENTION_FORCE_BUILD=TRUE
RUN pip wheel -q --no-deps --no-build-isolation --no-binary flash-attn --wheel-dir /wheels "flash-attn==$FLASH_ATTN"

FROM gpu AS openrlhf
USER 0
RUN --mount=type=bind,from=flash-attn,source=/wheels,target=/wheels \
    pip install -q --no-deps /wheels/flash_attn-*.whl && pip list --format=freeze >packages.txt
USER 10001:10001
