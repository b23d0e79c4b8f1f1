"""The settings of an experiment: validated, named, hashed."""
