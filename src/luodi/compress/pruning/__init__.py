"""Which weights go, and what becomes of those that stay."""
