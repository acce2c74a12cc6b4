"""The parts of a split, and what may leak between them."""
