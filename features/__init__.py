"""Model inputs of a row: sentences, text vectors, multiplexed look-ups.

The package imports nothing from `recsys`.
"""
