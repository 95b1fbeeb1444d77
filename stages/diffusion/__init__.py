"""Stages around the diffusion network: encode, predict, fuse, decode; prompts, schedules, rows."""
