"""Stores made of scores that others have published: CED's files, dense arrays."""
