"""Room `nets`."""
