"""Publishing jobs and calling them; knows nothing of the code that runs them."""
