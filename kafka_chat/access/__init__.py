"""Identifies a client by a signed token, and decides what it may do."""
