"""What can be asked over HTTP and WebSocket, a file a subject."""
