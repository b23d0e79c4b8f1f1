"""Maintainers' scripts: reference runs into the repository, and the tables of its pages from them. Not in the wheel."""
