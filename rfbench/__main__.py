"""``python -m rfbench``, the form that ``accelerate launch -m rfbench`` and ``torchrun -m rfbench`` need."""

from rfbench.cli import main

if __name__ == "__main__":
    main()
