"""What one does with a policy apart from training it."""
