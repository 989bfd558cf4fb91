"""The vocabulary of chats: pure functions and values."""
