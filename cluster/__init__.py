"""Actors, and what places and connects them."""

import gc

# Importing torch, vLLM or DeepSpeed makes a million objects that stay. Python's default (700, 10, 10) looks through
# all of them again and again meanwhile: a seventh of the processor time in which a learner or an engine starts.
gc.set_threshold(10_000, 10, 100)
