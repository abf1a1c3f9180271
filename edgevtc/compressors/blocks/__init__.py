"""Fixed-shape building blocks: what the methods have in common, in operators every inference back end has."""
