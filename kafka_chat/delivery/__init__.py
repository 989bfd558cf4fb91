"""The core: delivers records to sessions, without a Kafka client, a web framework or a socket."""
