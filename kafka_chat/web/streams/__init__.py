"""Connections that stay open: WebSockets and event streams."""
