"""The issuers of tokens: reads their keys periodically, and identifies clients by tokens. Needs the extra `kafka-chat[auth]`."""
