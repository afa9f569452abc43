"""Two towers: `network`, its `training`, rating towers, the retrieval model, and what is served."""
