"""What stands between the backbone's last map and the heads of SSGRL's line."""

from __future__ import annotations

from torch import nn


class Trunk(nn.Sequential):
    """Average 2 x 2 positions if asked to, then bring the map to `width` channels if it has another number.

    Maps (B, channels, H, W) become (B, width, H / 2, W / 2), or (B, width, H, W) without the pool.

    The SSGRL paper (Chen et al., ICCV 2019, https://arxiv.org/abs/1908.07325) mentions neither step; its code pools,
    and SARB's code also reduces 2048 channels to 1024 by a convolution and a batch norm, without a ReLU: features
    stay signed.
    """

    def __init__(self, channels: int, width: int, pool: bool) -> None:
        super().__init__()
        if pool:
            self.append(nn.AvgPool2d(2))
        if channels != width:
            self.append(nn.Conv2d(channels, width, kernel_size=1, bias=False))
            self.append(nn.BatchNorm2d(width))
