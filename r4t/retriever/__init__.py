"""The product of a run: a folder with a retriever, served without Ray, a language model or, with ONNX, even torch."""

from r4t.retriever.choose import choose
from r4t.retriever.items import ItemIndex
from r4t.retriever.retriever import R4TRetriever
from r4t.retriever.search import ItemSet, SetItem

__all__ = ["ItemIndex", "ItemSet", "R4TRetriever", "SetItem", "choose"]
