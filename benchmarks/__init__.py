"""The suites that ship with rfbench, and the speed and memory benchmarks."""
