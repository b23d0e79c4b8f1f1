"""What a run's folder holds: its records defined once, how older ones are read, what makes two runs the same."""
