"""rfbench: black-box reward finetuning of diffusion models, compared on one core under one budget."""

__version__ = "0.1.0"
