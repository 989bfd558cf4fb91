"""The process's garbage collector, log, standard streams and limit of open files."""
