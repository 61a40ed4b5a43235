"""Checking a store: every byte, every draw, and on request the sound and the teachers again."""
