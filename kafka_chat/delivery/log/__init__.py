"""What memory has of each partition, how the rest is read, and how news is handed out."""
