"""The application: views over the calls of the process."""
