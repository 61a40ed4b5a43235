"""Kinds of teachers, a file each: a file here is a kind by its name (see :mod:`teachers.registry`)."""
