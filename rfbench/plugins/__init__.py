"""How algorithms, models, rewards and prompt sets are found and configured."""
