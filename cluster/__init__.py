"""Actors, and what places and connects them."""

import gc

# Importing torch, vLLM and DeepSpeed makes objects that stay, and Python's default thresholds (700, 10, 10) look
# through all of them again and again meanwhile. Set for the whole process: a full collection is rarer afterwards too.
gc.set_threshold(10_000, 10, 100)
