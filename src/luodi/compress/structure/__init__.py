"""Which channels belong together, what they are worth, and how they are cut."""
