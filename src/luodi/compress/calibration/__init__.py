"""What each layer of a model is given on rows of the training split."""
