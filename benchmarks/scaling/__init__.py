"""How it grows: with the daemons, with the jobs that wait, and with their size."""
