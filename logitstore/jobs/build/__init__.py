"""Building and extending a store: audio and teachers in, blocks out."""
