"""Jobs that nobody wants any more: read from RabbitMQ, not begun, and shown to those that run."""
