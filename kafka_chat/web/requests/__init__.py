"""What a request says, checked, and how it is refused."""
