"""A sweep on a Slurm cluster: one batch script, submitted once. Slurm schedules; folders and queue are the state.

The script is written out rather than made by a library (submitit): runs are commands that resume exactly, so there is
no Python state to ship, and what is submitted is a page of text that its user can read, keep and change.
"""
