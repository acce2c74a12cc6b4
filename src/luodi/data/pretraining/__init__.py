"""What the step `pretrained` is made of: folders of the transformers library, their tokens, their networks."""
