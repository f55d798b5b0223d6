"""Room `worlds`."""
