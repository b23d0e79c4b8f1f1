"""The five linear layers on an embedding that the LAION aesthetic predictor and ImageReward end in."""

from __future__ import annotations

from torch import Tensor, nn

WIDTHS = (1024, 128, 64, 16, 1)
DROPOUTS = 3  # layers that a dropout followed in training; they give the published keys their numbers 0, 2, 4, 6, 7


class LinearHead(nn.Module):
    """Scores ``(n,)`` of embeddings ``(n, features)``: an affine map, as there is nothing between the layers."""

    def __init__(self, features: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(zip((features, *WIDTHS), WIDTHS, strict=False)):
            layers.append(nn.Linear(before, after))
            if index < DROPOUTS:
                layers.append(nn.Identity())
        self.layers = nn.Sequential(*layers)

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.layers(embeddings).squeeze(1)
