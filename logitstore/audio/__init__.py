"""Audio: where clips come from, how they are listed, cut and decoded."""
