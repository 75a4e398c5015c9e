"""The paper's tables and figures on open catalogues: `python -m benchmarks.study --help`."""
