"""Example data inside registry packages: the pinned list, and how it is fetched and read."""
