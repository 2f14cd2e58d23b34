"""The gate: whether a night's work is published, by its figures and by checks of its data and of what was built."""
