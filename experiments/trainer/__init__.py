"""What trains: configuration, runs, steps, feeding, checkpoints, methods."""
