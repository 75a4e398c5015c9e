"""The explorer: a page that the server of `r4t serve` gives away, as files that need no build step."""
