"""Views: which augmentations there are, what is drawn of them, and how a view sounds."""
