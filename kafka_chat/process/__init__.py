"""What a process does to itself: its collector, its log, its standard streams, its limit of open files."""
