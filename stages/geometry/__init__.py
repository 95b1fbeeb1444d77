"""How pictures lie in the frames of a run: rotated, mirrored, fitted; also pictures that a setting names."""
