"""`/health`, `/ready`, `/metrics`: what probes and Prometheus see."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kafka_chat.chat.message import Reject
from tests.support.fake_service import app_with_service, ask


@pytest.mark.promise("p-health", "p-alive")
async def test_health_says_that_the_consumer_is_running_whatever_else_is_wrong():
    app, service = app_with_service()
    service.state.problems.append("no broker answers")
    answer = await ask(app, "GET", "/health")
    assert answer.status == 200
    assert answer.json() == {"status": "Consumer is running"}
    app.service = None
    assert (await ask(app, "GET", "/health")).status == 200


@pytest.mark.promise("p-ready")
async def test_ready_names_what_it_notices():
    app, service = app_with_service()
    service.state.notices.append("kafka.chat.room1/3 has no leader; its messages wait")
    answer = await ask(app, "GET", "/ready")
    assert answer.status == 200
    assert answer.json() == {"ready": True, "problems": [], "notices": ["kafka.chat.room1/3 has no leader; its messages wait"]}


@pytest.mark.promise("p-ready")
async def test_not_ready_says_what_is_wrong_as_every_error_does():
    app, service = app_with_service()
    service.state.problems += ["no broker answers", "the subscriptions are still being read"]
    answer = await ask(app, "GET", "/ready")
    assert answer.status == 503
    assert answer.headers["retry-after"] == "5"
    assert answer.json() == {
        "error": "not ready: no broker answers; the subscriptions are still being read",
        "field": None,
        "ready": False,
        "problems": ["no broker answers", "the subscriptions are still being read"],
        "notices": [],
    }


async def test_before_the_service_is_open_it_is_not_ready():
    app, _ = app_with_service()
    app.service = None
    for target in ("/ready", "/metrics", "/subscribing/ada"):
        answer = await ask(app, "GET", target)
        assert answer.status == 503
        assert answer.headers["retry-after"] == "5"
        assert answer.json()["field"] is None


@pytest.mark.promise("p-metrics")
async def test_metrics_are_what_prometheus_reads():
    app, service = app_with_service()
    service.telemetry.session_opened(session_id="s1", username="ada", peer="127.0.0.1:50000")
    service.telemetry.delivered(messages=7, size=700)
    service.telemetry.record_rejected(topic="kafka.chat.x", partition=0, offset=5, reason=Reject.BAD_JSON)
    await ask(app, "GET", "/nowhere")
    answer = await ask(app, "GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }
    assert samples[("kafka_chat_sessions",)] == 1
    assert samples[("kafka_chat_messages_delivered_total",)] == 7
    assert samples[("kafka_chat_delivered_bytes_total",)] == 700
    assert samples[("kafka_chat_records_rejected_total", "bad_json")] == 1
    assert samples[("kafka_chat_records_rejected_total", "tombstone")] == 0
    assert samples[("kafka_chat_requests_refused_total", "404")] == 1
    assert "ada" not in answer.body.decode()
