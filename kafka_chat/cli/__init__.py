"""The command line, `kafka-chat`."""
