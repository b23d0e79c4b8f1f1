"""Worlds that ship with rfbench: model, prompts and rewards in one folder each."""
