"""How files become rows: cells, tables, images, and the Arrow file that keeps them."""
