"""What a run will be: its configuration, its stages, lanes and links, and where each stage works. Nothing is opened."""
