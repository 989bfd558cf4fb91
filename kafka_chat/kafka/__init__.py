"""The left edge: everything that talks to Kafka, and its threads."""
