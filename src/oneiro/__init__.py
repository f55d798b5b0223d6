"""oneiro: every world model behind one protocol. Learn a world from pixels, dream in it, play in it."""

__version__ = "0.1.0"
