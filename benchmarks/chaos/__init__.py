"""Faults injected into real runs, and what the runs made of them."""
