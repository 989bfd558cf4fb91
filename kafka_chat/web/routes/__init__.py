"""The routes over HTTP and WebSocket, one file per subject."""
