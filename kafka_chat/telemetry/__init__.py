"""What the operator sees: events as log lines and metrics."""
