"""Faults on purpose: runs that are killed, disks that fill, files that are damaged, plugins that misbehave.

``make faults`` runs the whole campaign and prints a table of what was tried, held and broke; docs/faults.md says what
each kind does. A trial is repeated by its kind and seed: ``python -m tests.faults --kind kill --seed 17``.
"""
