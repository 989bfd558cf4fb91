"""What a process does to itself: its collector, its log, its limit of open files."""
