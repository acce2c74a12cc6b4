"""Rows in folds, and models that never saw the rows they are asked about."""
