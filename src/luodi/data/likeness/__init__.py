"""Rows that are nearly the same: pictures by perceptual hash, texts by MinHash."""
