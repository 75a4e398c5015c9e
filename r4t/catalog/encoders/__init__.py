"""Frozen encoders of the shared space, all behind one protocol. Nothing is ever downloaded."""

from r4t.catalog.encoders.base import Encoder, unit_rows
from r4t.catalog.encoders.configured import base_encoder, encoder_record, run_encoder, word_encoder
from r4t.catalog.encoders.loading import load_encoder

__all__ = [
    "Encoder",
    "base_encoder",
    "encoder_record",
    "load_encoder",
    "run_encoder",
    "unit_rows",
    "word_encoder",
]
