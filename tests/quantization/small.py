"""Small networks with everything that makes quantization hard, and something to calibrate them on."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Residual(nn.Module):
    """Batch norm, a shortcut that a layer makes and one that is the input, padding, pooling, a flattened classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn0 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv1, self.bn1 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.down, self.bn3 = nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.depth = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.point = nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16 * 4, 5)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn0(self.stem(x)))
        y = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(y)) + self.bn3(self.down(x)))
        y = self.point(F.relu(self.depth(x)))
        x = F.max_pool2d(torch.relu_(x + y), 4)
        return self.head(self.drop(x.flatten(1)))


class Attention(nn.Module):
    """Tokens and a mask to a vector: norms, softmax, a residual stream that norms read, two inputs."""

    def __init__(self, after: bool = True) -> None:
        super().__init__()
        self.after = after
        self.words = nn.Embedding(20, 16)
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.query, self.key, self.value, self.out = (nn.Linear(16, 16) for _ in range(4))
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.words(ids)
        if self.after:
            x = self.norm1(x)
            x = self.norm2(x + self._attend(x, mask))
            return x + self.down(F.gelu(self.up(x)))
        x = x + self._attend(self.norm1(x), mask)
        return x + self.down(F.gelu(self.up(self.norm2(x))))

    def _attend(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (2, 8)).transpose(1, 2) for f in (self.query, self.key, self.value))
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.bool()[:, None, None, :])
        return self.out(found.transpose(1, 2).flatten(2))


def residual(seed: int = 0) -> Residual:
    """With statistics and weights of batch norm that matter."""
    torch.manual_seed(seed)
    model = Residual()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_()
    return model.eval()


def attention(after: bool = True) -> Attention:
    torch.manual_seed(0)
    return Attention(after).eval()


def images(count: int = 3, size: int = 8, seed: int = 1) -> list[Tensor]:
    """Batches of eight."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(8, 3, size, size, generator=generator) for _ in range(count)]


def sentences(count: int = 3) -> list[tuple[Tensor, Tensor]]:
    """Batches of four with padding."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(4, 6, dtype=torch.int64)
    mask[1:, 4:] = 0
    return [(torch.randint(0, 20, (4, 6), generator=generator), mask) for _ in range(count)]


def error(found: Tensor, right: Tensor) -> float:
    """||found - right|| / ||right||."""
    return float(((found - right).norm() / right.norm()).detach())
