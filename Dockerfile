# One image for the controller, the workers, the dashboard, MLflow and Ray; docker-compose.yml says which does what.
FROM python:3.11-slim

# The compiler is for the CPU's neuron kernel and for Triton, both compiled on first use.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/spikebench
ARG EXTRAS=gpu,ray,wandb
COPY pyproject.toml constraints.txt README.md LICENSE ./
# The pinned packages alone, so that a change of the code does not install them again.
RUN mkdir configs search_spaces trainers orchestrator \
    && pip install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]" \
    && pip uninstall --yes spikebench
COPY configs configs
COPY search_spaces search_spaces
COPY trainers trainers
COPY orchestrator orchestrator
RUN pip install --no-cache-dir --no-deps .

# Volumes take over the owner of these folders when they are first used.
RUN useradd --create-home --uid 1000 spikebench \
    && mkdir -p /work/runs /work/data /work/mlflow \
    && chown -R spikebench /work
USER spikebench
WORKDIR /work
CMD ["spikebench", "--help"]
