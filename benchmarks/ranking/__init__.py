"""Who is measured in `benchmarks.priority`, and the low jobs that are in the way."""
