"""What a run writes down: rollouts, metrics, timing, alerts, the run record."""
