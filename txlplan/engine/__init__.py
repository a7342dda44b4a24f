"""What a worker runs: training, scoring, generating, checkpoints. Import its modules by name; torch loads with them."""
