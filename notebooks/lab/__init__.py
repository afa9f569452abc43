"""What only the notebooks call: one shopper's table, tuning, recording, ablations, replays, tours."""
