"""What clients write to Kafka: subscriptions and messages."""
