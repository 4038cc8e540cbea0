"""Who calls and who answers in `benchmarks.call` and `benchmarks.arrays`."""
