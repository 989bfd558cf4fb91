"""`python -m kafka_chat` is `kafka-chat`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
