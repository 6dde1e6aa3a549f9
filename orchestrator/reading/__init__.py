"""What a database says of its studies, read with set queries."""
