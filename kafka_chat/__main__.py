"""`python -m kafka_chat` is `kafka-chat`."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
