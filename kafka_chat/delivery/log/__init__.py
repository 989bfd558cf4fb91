"""Each partition's records in memory, the reads of its past, and the fan-out of its news."""
