"""Knows which session follows which topic, and from which offset."""
