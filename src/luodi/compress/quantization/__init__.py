"""Numbers of few bits: grids, and ways to put weights on them."""
