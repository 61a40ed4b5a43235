"""The listening page: what is served of a store, how it is searched and heard, and the verdicts that people give."""
