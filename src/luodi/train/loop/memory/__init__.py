"""What a training needs in memory: predicted, measured, kept to."""
