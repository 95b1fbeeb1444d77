"""What this machine has and lacks, and whether it keeps up with a source: `warpfuse doctor`."""
