"""Pages of a chat's past."""
