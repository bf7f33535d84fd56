"""A one-stage detector in the manner of YOLO: three scales joined up and down, no anchors.

Backbone of cross-stage partial blocks (Wang et al., arXiv:1911.11929), a path aggregation
neck (Liu et al., arXiv:1803.01534) and a decoupled head without anchors (Ge et al., YOLOX,
arXiv:2107.08430). Written for its shape as a graph: branches, resizes and concatenations
that keep several tensors live at most cuts. It is nobody's release and detects nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES = 80


class Conv(nn.Sequential):
    """Convolution, batch normalisation, SiLU."""

    def __init__(self, inside: int, outside: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inside, outside, kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outside),
            nn.SiLU(),
        )


class Bottleneck(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.first = Conv(channels, channels)
        self.second = Conv(channels, channels, 3)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Shape is kept."""
        y: Tensor = self.second(self.first(x))
        return x + y if self.shortcut else y


class Partial(nn.Module):
    """A cross-stage partial block: half of the channels pass by the bottlenecks."""

    def __init__(self, inside: int, outside: int, depth: int, shortcut: bool = True) -> None:
        super().__init__()
        half = outside // 2
        self.through = Conv(inside, half)
        self.past = Conv(inside, half)
        self.blocks = nn.Sequential(*(Bottleneck(half, shortcut) for _ in range(depth)))
        self.join = Conv(2 * half, outside)

    def forward(self, x: Tensor) -> Tensor:
        """Height and width are kept."""
        joined: Tensor = self.join(torch.cat([self.blocks(self.through(x)), self.past(x)], dim=1))
        return joined


class Head(nn.Module):
    """Boxes and classes of one scale, from separate branches."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.stem = Conv(channels, 64)
        self.classes = nn.Sequential(Conv(64, 64, 3), nn.Conv2d(64, CLASSES, 1))
        self.boxes = nn.Sequential(Conv(64, 64, 3), nn.Conv2d(64, 4, 1))
        self.objectness = nn.Conv2d(64, 1, 1)
        for last in (self.classes[-1], self.boxes[-1], self.objectness):
            nn.init.normal_(last.weight, std=0.01)  # sizes are exponentials of what these give

    def forward(self, x: Tensor) -> Tensor:
        """Predictions (batch, cells, 5 + classes): centre, size, objectness, classes."""
        stem = self.stem(x)
        boxes = self.boxes(stem)
        rows = torch.arange(boxes.shape[2], dtype=boxes.dtype)
        columns = torch.arange(boxes.shape[3], dtype=boxes.dtype)
        grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"))
        centre = (boxes[:, :2] + grid) * self.stride
        size = torch.exp(boxes[:, 2:].clamp(max=4.0)) * self.stride
        scores = torch.sigmoid(torch.cat([self.objectness(stem), self.classes(stem)], dim=1))
        return torch.cat([centre, size, scores], dim=1).flatten(2).transpose(1, 2)


class Detector(nn.Module):
    """Backbone, neck and heads.

    Args:
        width: Channels of the first block; each stage doubles them.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        c = [width * 2**at for at in range(5)]
        self.stem = Conv(3, c[0], 3, 2)
        self.stage1 = nn.Sequential(Conv(c[0], c[1], 3, 2), Partial(c[1], c[1], 1))
        self.stage2 = nn.Sequential(Conv(c[1], c[2], 3, 2), Partial(c[2], c[2], 2))
        self.stage3 = nn.Sequential(Conv(c[2], c[3], 3, 2), Partial(c[3], c[3], 3))
        self.stage4 = nn.Sequential(Conv(c[3], c[4], 3, 2), Partial(c[4], c[4], 1))
        self.lateral4 = Conv(c[4], c[3])
        self.up3 = Partial(2 * c[3], c[3], 1, shortcut=False)
        self.lateral3 = Conv(c[3], c[2])
        self.up2 = Partial(2 * c[2], c[2], 1, shortcut=False)
        self.down2 = Conv(c[2], c[2], 3, 2)
        self.down3 = Conv(c[3], c[3], 3, 2)
        self.out3 = Partial(2 * c[2], c[3], 1, shortcut=False)
        self.out4 = Partial(2 * c[3], c[4], 1, shortcut=False)
        self.heads = nn.ModuleList([Head(c[2], 8), Head(c[3], 16), Head(c[4], 32)])
        self.larger = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Predictions of all scales, one row a cell."""
        small = self.stage2(self.stage1(self.stem(images)))
        middle = self.stage3(small)
        top = self.lateral4(self.stage4(middle))
        joined = self.lateral3(self.up3(torch.cat([self.larger(top), middle], dim=1)))
        fine = self.up2(torch.cat([self.larger(joined), small], dim=1))
        medium = self.out3(torch.cat([self.down2(fine), joined], dim=1))
        coarse = self.out4(torch.cat([self.down3(medium), top], dim=1))
        scales = zip(self.heads, (fine, medium, coarse), strict=True)
        return {"predictions": torch.cat([head(x) for head, x in scales], dim=1)}
