"""Reading, checking and refusing requests."""
