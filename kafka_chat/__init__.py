"""A gateway that delivers chat messages from Kafka topics to WebSockets."""
