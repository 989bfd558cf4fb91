"""Each partition's records in memory, the page reads of its past, and the fan-out of its new records."""
