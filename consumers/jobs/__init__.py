"""The jobs that come with rabbitry: signals and demonstrations."""
