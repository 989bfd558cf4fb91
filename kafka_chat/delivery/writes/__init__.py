"""Writes of clients to Kafka: subscriptions and messages."""
