"""The left edge: everything that talks to Kafka, and the threads that this takes."""
