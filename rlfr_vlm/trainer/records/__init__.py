"""Records of a training run: rollouts, metrics, timing, alerts, the run record."""
