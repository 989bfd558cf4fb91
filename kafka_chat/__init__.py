"""Kafka chat topics on people's screens."""
