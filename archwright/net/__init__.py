"""Floor 2: a graph with weights, and what can be done with it."""
