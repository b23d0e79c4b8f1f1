"""Rewards: one file per reward model."""
