"""Object stores through fsspec: where runs are kept for good, and where data may come from.

A run works in a directory of a file system, for it needs locks, renames and memory maps. A store holds its mirror.
"""
