"""Room `behaviours`."""
