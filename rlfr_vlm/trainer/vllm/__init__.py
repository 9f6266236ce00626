"""Rollouts on vLLM: patches of TRL's engine, checks that it follows the policy, LoRA weights."""
