"""Room `recipes`."""
