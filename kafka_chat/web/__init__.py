"""The right edge: everything that talks HTTP and WebSocket."""
