# Any x86-64 or ARM machine: ONNX Runtime and OpenVINO.
#   docker build -f docker/cpu.Dockerfile -t prunus:cpu .
#   docker run --rm --user "$(id -u)" -v "$PWD:/data" prunus:cpu run pose --source clip.mp4 --sink out.mp4
FROM python:3.11.9-slim-bookworm
ENV PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY . /src
WORKDIR /src
RUN bash docker/install_cpu.sh && useradd --create-home --uid 10001 prunus && rm -rf /src/*
WORKDIR /data
USER 10001
ENTRYPOINT ["prunus"]
CMD ["doctor"]
