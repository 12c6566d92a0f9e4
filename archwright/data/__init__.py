"""Floor 3: data as values, with typed splits."""
