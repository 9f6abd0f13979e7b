"""Speed and memory, as ratios against runc in the same run: ``python -m benchmarks`` (root; see README.md)."""
