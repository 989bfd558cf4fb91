"""Who signs tokens: their keys, fetched and read again, and who asks by a token. Needs the extra `kafka-chat[auth]`."""
