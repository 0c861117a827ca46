# NVIDIA Triton, and prunus in an environment that its Python back end is pointed to.
#   docker build -f docker/triton.Dockerfile -t prunus:triton .
#   docker run --rm --user "$(id -u)" -v "$PWD:/data" --entrypoint prunus prunus:triton \
#     deploy triton pose segmentation codec -o repository --environment /opt/prunus
#   docker compose -f docker/triton.compose.yaml --project-directory . up
FROM nvcr.io/nvidia/tritonserver:25.06-py3
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/prunus/bin:$PATH
# Unpinned: the base image fixes the archive, whose versions move with security updates.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/prunus
COPY . /src
WORKDIR /src
RUN PIP=/opt/prunus/bin/pip bash docker/install_triton.sh \
    && useradd --create-home --uid 10001 prunus && rm -rf /src/*
WORKDIR /data
USER 10001
ENTRYPOINT ["tritonserver"]
CMD ["--model-repository=/data/repository"]
