"""`python -m kafka_chat` runs `kafka-chat`."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
