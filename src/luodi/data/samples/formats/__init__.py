"""Files of published networks: their bytes as tensors and tokenizers."""
