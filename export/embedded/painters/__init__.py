"""Procedural painters, the teachers of the embedded styles: what they paint is a function of the picture alone."""
