"""Procedural painters, the teachers of the embedded styles. They paint a function of the picture only."""
