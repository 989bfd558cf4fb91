"""History pages: ranges of one chat's messages."""
