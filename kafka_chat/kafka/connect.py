"""How this service's clients of Kafka are configured, and how their errors become ours."""
