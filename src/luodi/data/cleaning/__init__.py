"""What `clean` looks for."""
