"""Rows of rare labels made more, or those of frequent ones fewer."""
