"""The right edge: everything that speaks HTTP and WebSocket."""
