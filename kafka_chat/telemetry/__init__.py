"""Events as log lines and metrics, for the operator."""
