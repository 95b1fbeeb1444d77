"""What this machine makes of a bundle: every figure beside the floor under it."""
