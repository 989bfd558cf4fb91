"""The core: how records reach sessions, without a Kafka client, a web framework or a socket."""
