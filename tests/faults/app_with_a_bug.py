"""An application whose Tail has a bug that the first record brings out which is no message; run by tests as a child process."""

from __future__ import annotations

import os
import sys
from functools import partial

import trio

from kafka_chat.application import create
from kafka_chat.assembly import open_service
from kafka_chat.cli import main as cli
from kafka_chat.process.log_output import log_to_stderr
from kafka_chat.settings.sources import load_settings
from tests.faults.test_bugs import WithBugs

settings = load_settings(config_file=None, environ=os.environ, flags={})
app = create(settings)
app.open_service = partial(open_service, settings, telemetry=WithBugs("record_rejected"))
log_to_stderr()

if __name__ == "__main__":
    try:
        trio.run(cli._serve_until_signalled, app, settings)
    except cli._Failed:
        sys.exit(cli.FAILED)
