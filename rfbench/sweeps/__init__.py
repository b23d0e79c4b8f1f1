"""A sweep: many runs, each in processes of its own, on this machine or on a Slurm cluster, until all are finished.

The folders are the sweep's only state. What is finished there is skipped, what was cut off is resumed, and a run that
fails does not stop the others. So the same command, given again, goes on.
"""
