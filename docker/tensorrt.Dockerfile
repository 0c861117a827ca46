# NVIDIA GPUs, TensorRT 10 from the base image. Needs the NVIDIA container toolkit on the host.
#   docker build -f docker/tensorrt.Dockerfile -t prunus:tensorrt .
#   docker run --rm --gpus all --user "$(id -u)" -v "$PWD:/data" prunus:tensorrt build model.onnx --flavour tensorrt
FROM nvcr.io/nvidia/tensorrt:25.06-py3
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/prunus/bin:$PATH
# Unpinned: the base image fixes the archive, whose versions move with security updates.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv --system-site-packages /opt/prunus
COPY . /src
WORKDIR /src
RUN PIP=/opt/prunus/bin/pip bash docker/install_tensorrt.sh \
    && useradd --create-home --uid 10001 prunus && rm -rf /src/*
WORKDIR /data
USER 10001
ENTRYPOINT ["prunus"]
CMD ["doctor"]
