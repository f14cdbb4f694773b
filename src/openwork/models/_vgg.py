"""The thirteen convolutions that both VGG-16s share."""

from torch import nn

# Channels of each 3x3 convolution; 0 is a 2x2 max pooling.
LAYOUT = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)


def features(batch_norm: bool) -> nn.Sequential:
    """[batch, 3, side, side] to [batch, 512, side / 32, side / 32]; names are those of torchvision."""
    layers: list[nn.Module] = []
    channels = 3
    for width in LAYOUT:
        if not width:
            layers.append(nn.MaxPool2d(2))
            continue
        layers.append(nn.Conv2d(channels, width, 3, padding=1))
        if batch_norm:
            layers.append(nn.BatchNorm2d(width))
        layers.append(nn.ReLU(inplace=True))
        channels = width
    return nn.Sequential(*layers)
