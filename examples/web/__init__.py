"""What the two web applications share: the job, the calls under way, the page, how it starts."""
