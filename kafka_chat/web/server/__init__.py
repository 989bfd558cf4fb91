"""hypercorn, adapted: all that knows the server's insides."""
