"""Records of one partition, decoded and rendered once for all clients."""
