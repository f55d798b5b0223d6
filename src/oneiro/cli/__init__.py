"""The command line: one file per group of verbs, each parsed from dataclasses by tyro."""
