"""`rabbitry worker`, `queues` and `dead-letters`: one module a group of commands."""
