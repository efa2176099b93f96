"""How fast, how large: `make bench` measures it and writes README's table; docs/benchmarks.md."""
