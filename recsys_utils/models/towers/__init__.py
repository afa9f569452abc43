"""Two towers: `network`, its `training` in a `loop`, `ratings`, retrieval, and what is served."""
