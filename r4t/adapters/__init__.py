"""Items and rows of an exported retriever in a vector store of yours, so that search stays where it is."""
