"""Between the topology file and RabbitMQ: knows neither producers nor consumers."""
