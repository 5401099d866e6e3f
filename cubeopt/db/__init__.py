"""PostgreSQL: the embedded server, the tables and every statement on them."""
