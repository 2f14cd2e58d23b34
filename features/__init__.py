"""What a row becomes before a model sees it: sentences, text vectors, multiplexed look-ups.

Imports nothing of `recsys`.
"""
