"""All that can be checked and counted before weights load."""
