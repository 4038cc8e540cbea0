"""The outbox: accepted jobs on the disk until RabbitMQ has confirmed them.

`Outbox` is a file of the producer's own; `table` is for programs that write their jobs in a
transaction of their own database.
"""
