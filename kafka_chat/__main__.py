"""`python -m kafka_chat`, and the command `kafka-chat`."""

from typing import NoReturn

from .cli.main import main
from .process.ending import end_with


def run() -> NoReturn:
    """Run the command, and end the process with its exit code."""
    end_with(main)


if __name__ == "__main__":
    run()
