# kafka_chat as a container: `docker build --tag kafka-chat .`, then
# `docker run -p 8001:8001 -e KAFKA_CHAT_KAFKA__BOOTSTRAP_SERVERS=kafka:9092 kafka-chat`.
ARG BASE=docker.io/library/python:3.13-slim

FROM ${BASE} AS build
# Two environments, so that no build tool gets into the image, pip included.
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/kafka_chat
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements-build.lock requirements-runtime.lock ./
# Wheels only: no base of this image has a compiler.
RUN /opt/build/bin/pip install --only-binary :all: --require-hashes --requirement requirements-build.lock
RUN /opt/build/bin/pip --python /opt/kafka_chat/bin/python install --only-binary :all: --require-hashes --requirement requirements-runtime.lock
COPY pyproject.toml README.md LICENSE ./
COPY kafka_chat kafka_chat
RUN /opt/build/bin/pip wheel --no-build-isolation --no-deps --wheel-dir dist . \
    && /opt/build/bin/pip --python /opt/kafka_chat/bin/python install --no-index --no-deps dist/*.whl

FROM ${BASE}
LABEL org.opencontainers.image.title="kafka_chat" org.opencontainers.image.licenses="MIT"
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin kafka_chat
COPY --from=build /opt/kafka_chat /opt/kafka_chat
# A broker must be named: the embedded one, which forgets everything, is used only on request.
ENV PATH=/opt/kafka_chat/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    KAFKA_CHAT_SERVER__HOST=0.0.0.0 \
    KAFKA_CHAT_SERVER__PORT=8001 \
    KAFKA_CHAT_KAFKA__EMBEDDED=false
# Where a config.yaml is read from, if one is mounted there.
WORKDIR /etc/kafka_chat
USER 10001
EXPOSE 8001
# Not urllib, which would ask the proxy that http_proxy names.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python3", "-c", "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', 8001, timeout=2); c.request('GET', '/health'); sys.exit(c.getresponse().status != 200)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["kafka-chat"]
CMD ["serve"]
