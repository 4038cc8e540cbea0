"""Queues as they are now: counted by RabbitMQ's statistics, or looked into over AMQP."""
