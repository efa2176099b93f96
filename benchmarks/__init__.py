"""How fast, how large: `make bench` measures it and writes docs/benchmarks.md."""
