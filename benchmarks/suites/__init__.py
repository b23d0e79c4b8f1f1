"""The suites that ship with rfbench, as TOML; found through the entry-point group ``rfbench.suites``."""
