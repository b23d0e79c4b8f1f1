"""A run: the loop, its folder, checkpoints, and what to do when it stops."""
