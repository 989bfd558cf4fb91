# kafka_chat as a container: `docker build -t kafka-chat .`, then
# `docker run -p 8001:8001 -e KAFKA_CHAT_KAFKA__BOOTSTRAP_SERVERS=kafka:9092 kafka-chat`.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
WORKDIR /src
RUN python3 -m venv /opt/kafka_chat
COPY requirements-runtime.lock pyproject.toml README.md LICENSE ./
RUN /opt/kafka_chat/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements-runtime.lock
COPY kafka_chat kafka_chat
# What builds the wheel is of no use afterwards, and pip would only be one more thing to keep up to date.
RUN /opt/kafka_chat/bin/pip install --no-cache-dir --disable-pip-version-check --no-build-isolation --no-deps . \
    && /opt/kafka_chat/bin/pip uninstall --yes --quiet hatchling editables pathspec pluggy trove-classifiers pip \
    && find /opt/kafka_chat -name '*.dist-info' -prune -o -name tests -type d -exec rm -rf {} + \
    && /opt/kafka_chat/bin/python -m compileall -q /opt/kafka_chat

FROM ${BASE}
LABEL org.opencontainers.image.title="kafka_chat" org.opencontainers.image.licenses="MIT"
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin kafka_chat
COPY --from=build /opt/kafka_chat /opt/kafka_chat
# Without a broker address it ends with a sentence; the embedded broker, which forgets everything, has to be asked for.
ENV PATH=/opt/kafka_chat/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    KAFKA_CHAT_SERVER__HOST=0.0.0.0 \
    KAFKA_CHAT_SERVER__PORT=8001 \
    KAFKA_CHAT_KAFKA__EMBEDDED=false
WORKDIR /tmp
USER 10001
EXPOSE 8001
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8001/health', timeout=2).read()"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["kafka-chat"]
CMD ["serve"]
