"""Evaluation: labelled sets, what models say of them, and how good that is."""
