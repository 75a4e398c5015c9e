"""The endpoint: a query over HTTP in, sets of items out. Needs neither torch nor Ray with an exported graph."""
