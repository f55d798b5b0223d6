"""A page where a person plays in the dream of a run."""
