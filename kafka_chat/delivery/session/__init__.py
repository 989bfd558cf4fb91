"""One client, from its accept to its end."""
