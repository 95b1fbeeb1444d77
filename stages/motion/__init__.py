"""Stages around optical flow: where each pixel was, how far that may be believed, and warping along it."""
