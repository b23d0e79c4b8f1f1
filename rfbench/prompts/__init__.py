"""Prompt sets: indexable sequences of prompts."""
