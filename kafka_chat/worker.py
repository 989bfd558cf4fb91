"""The entry point of a worker: `python -m kafka_chat.worker NUMBER LINE SOCKET`, as the supervisor starts it.

Its path must not change: a supervisor that keeps running while the package is upgraded starts its workers by this name.
"""

from .process.ending import end_with
from .workers.worker_main import main

if __name__ == "__main__":
    end_with(main)
