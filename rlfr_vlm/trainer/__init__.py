"""The trainer: TRL's GRPO with flow rewards."""
