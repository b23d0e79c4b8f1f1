"""How the weights of the world `shapes` are made: `python -m rfbench.shapes.pretrain --out DIR`."""
