"""R4T's reward and loss inside other trainers, and what they trained back in a run (docs/openrlhf.md)."""
