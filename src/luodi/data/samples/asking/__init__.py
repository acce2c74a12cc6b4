"""Questions about texts, by rule."""
