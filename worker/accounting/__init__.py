"""What is kept of every finished record."""
