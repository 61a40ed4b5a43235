"""Teachers: what can be put in front of a store, several of them as one, and training one of your own."""
