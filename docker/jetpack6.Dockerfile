# Jetson with JetPack 6: Python 3.10, TensorRT 10.3 from the base image.
#   docker build -f docker/jetpack6.Dockerfile -t prunus:jetpack6 .
#   docker run --rm --runtime nvidia --device /dev/video0 -v "$PWD:/data" prunus:jetpack6 doctor
FROM nvcr.io/nvidia/l4t-jetpack:r36.4.0
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/prunus/bin:$PATH
# Unpinned: the base image fixes the archive, whose versions move with security updates.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv --system-site-packages /opt/prunus
COPY . /src
WORKDIR /src
# The group 'video' may open the GPU's device nodes and the camera.
RUN PIP=/opt/prunus/bin/pip bash docker/install_jetpack6.sh \
    && useradd --create-home --uid 10001 --groups video prunus && rm -rf /src/*
WORKDIR /data
USER 10001
ENTRYPOINT ["prunus"]
CMD ["doctor"]
