"""What one GPU does: `make gpu`."""
