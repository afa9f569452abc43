"""What only the notebooks call: a shopper's table, tuning, recording, ablations, replays, tours."""
