"""What a task knows of the columns of its rows."""
