"""Who somebody is, by a signed token, and what they may do."""
