"""What becomes of a job that fails: again, or a dead letter with a case file."""
