"""Small networks of tokens, written from their papers, for images that are wider than high.

Each has ``stream``: the submodule whose input is the target layer, as a function of it ``to_grid`` makes (N, C, H, W).
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import exports
import torch
from torch import nn
from torch.nn import functional as F

GRID = (3, 5)
PATCH = 4
CLASSES = 5


class Attention(nn.Module):  # type: ignore[misc]
    """Multi-head self-attention of (B, T, C), written out or left to torch's fused function."""

    def __init__(self, width: int, heads: int, fused: bool = True) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = ((q * (c // self.heads) ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(b, t, c))


class TorchAttention(nn.Module):  # type: ignore[misc]
    """torch's own multi-head attention, sequence first inside."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


def norm(width: int) -> nn.LayerNorm:
    """With an epsilon that float32 holds exactly: in ONNX it is a float32 attribute."""
    return nn.LayerNorm(width, eps=2.0**-17)


def mlp(width: int, inner: int, out: int | None = None) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, out or width))


class Block(nn.Module):  # type: ignore[misc]
    """x + mixer(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, mixer: nn.Module) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(width), norm(width)
        self.mixer, self.mlp = mixer, mlp(width, 2 * width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.mixer(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Network(nn.Module):  # type: ignore[misc]
    """What all have: the image size, weights from a fixed seed, and the norm whose input is the target layer."""

    size = (GRID[0] * PATCH, GRID[1] * PATCH)
    stream = "blocks.1.norm1"

    def finish(self) -> None:
        generator = torch.Generator().manual_seed(0)
        for name, parameter in self.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter.data.uniform_(0.8, 1.2, generator=generator)
            else:
                spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 and "token" not in name else 0.5
                parameter.data.normal_(0, spread, generator=generator)
        self.eval()

    def to_grid(self, x: Any) -> Any:
        """The layer's value as (N, C, H, W)."""
        return x.transpose(0, 2, 1).reshape(len(x), -1, *GRID)


class ViT(Network):
    """Dosovitskiy 2021: a class token and ``registers`` more before the patches, ``trailing`` behind them.

    ``embed``: "conv", or "unfold" (the patches are cut out by reshaping, as einops does). Without tokens in front the
    head takes the mean.
    """

    def __init__(
        self, leading: int = 1, trailing: int = 0, width: int = 12, embed: str = "conv", attention: Any = Attention
    ) -> None:
        super().__init__()
        self.leading, self.embed = leading, embed
        if embed == "conv":
            self.patch = nn.Conv2d(3, width, PATCH, PATCH)
        else:
            self.patch = nn.Linear(3 * PATCH**2, width)
        self.token_first = nn.Parameter(torch.zeros(1, leading, width)) if leading else None
        self.token_last = nn.Parameter(torch.zeros(1, trailing, width)) if trailing else None
        self.token_position = nn.Parameter(torch.zeros(1, GRID[0] * GRID[1], width))
        self.blocks = nn.Sequential(*(Block(width, attention(width, 2)) for _ in range(2)))
        self.norm, self.head = norm(width), nn.Linear(width, CLASSES)
        self.finish()

    def patches(self, x: torch.Tensor) -> torch.Tensor:
        if self.embed == "conv":
            return self.patch(x).flatten(2).transpose(1, 2)
        x = x.reshape(-1, 3, GRID[0], PATCH, GRID[1], PATCH).permute(0, 2, 4, 3, 5, 1)
        return self.patch(x.reshape(-1, GRID[0] * GRID[1], 3 * PATCH**2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x) + self.token_position
        first = [] if self.token_first is None else [self.token_first.expand(x.shape[0], -1, -1)]
        last = [] if self.token_last is None else [self.token_last.expand(x.shape[0], -1, -1)]
        x = self.norm(self.blocks(torch.cat([*first, x, *last], 1)))
        return self.head(x[:, 0] if self.leading else x.mean(1))

    def to_grid(self, x: Any) -> Any:
        return super().to_grid(x[:, self.leading : self.leading + GRID[0] * GRID[1]])


class ColumnOrder(ViT):
    """A ViT whose patches are numbered down the columns."""

    def patches(self, x: torch.Tensor) -> torch.Tensor:
        return self.patch(x).transpose(2, 3).flatten(2).transpose(1, 2)

    def to_grid(self, x: Any) -> Any:
        x = x[:, 1:].transpose(0, 2, 1)
        return x.reshape(*x.shape[:2], GRID[1], GRID[0]).swapaxes(2, 3)


class Unplaced(ViT):
    """A ViT that does not know where its patches lie, so that it takes images of any size."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.token_first.expand(x.shape[0], -1, -1)
        return self.head(self.norm(self.blocks(torch.cat([first, self.patches(x)], 1)))[:, 0])


class Cropped(ViT):
    """A ViT that leaves the last two patches out: what is left is no grid."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.token_first.expand(x.shape[0], -1, -1)
        x = torch.cat([first, self.patches(x)[:, :-2]], 1)
        return self.head(self.norm(self.blocks(x))[:, 0])


def spotter(network: ViT) -> ViT:
    """Weights that make the first class the brightness of the patches, as far as it comes to the class token.

    The channels are brightness, its negative, 1 and −1; attention takes the mean of the first.
    """
    for name, parameter in network.named_parameters():
        if "norm" not in name:
            parameter.data.zero_()
    network.patch.weight.data[0], network.patch.weight.data[1] = PATCH**-2, -(PATCH**-2)
    network.patch.bias.data[:4] = torch.tensor([0.0, 0, 1, -1])
    network.token_first.data[..., :4] = torch.tensor([0.0, 0, 1, -1])
    for block in network.blocks:
        width = block.mixer.proj.weight.shape[0]
        block.mixer.qkv.weight.data[2 * width, 0] = block.mixer.proj.weight.data[0, 0] = 1
    network.head.weight.data[0, 0] = 1
    return network


class TokenMixing(nn.Module):  # type: ignore[misc]
    """The mixer of the MLP-Mixer: an MLP over the tokens, the same for every channel."""

    def __init__(self, _width: int, _heads: int) -> None:
        super().__init__()
        self.mlp = mlp(GRID[0] * GRID[1], 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mlp(x.transpose(1, 2)).transpose(1, 2)


class ConvolutionOverTokens(nn.Module):  # type: ignore[misc]
    """The same with convolutions that take the tokens for channels."""

    def __init__(self, _width: int, _heads: int) -> None:
        super().__init__()
        count = GRID[0] * GRID[1]
        self.mlp = nn.Sequential(nn.Conv1d(count, 8, 1), nn.GELU(), nn.Conv1d(8, count, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mlp(x)


class Windows(nn.Module):  # type: ignore[misc]
    """Swin's attention: within windows of 2 × 2 of an (N, H, W, C) grid, shifted by one where asked for."""

    def __init__(self, width: int, shift: bool) -> None:
        super().__init__()
        self.attention, self.shift = Attention(width, width // 4, fused=False), shift  # a scale of ½, which is exact

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, h, w, c = x.shape
        x = torch.roll(x, (-1, -1), (1, 2)) if self.shift else x
        x = x.view(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        x = self.attention(x).view(-1, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, h, w, c)
        return torch.roll(x, (1, 1), (1, 2)) if self.shift else x


class Merge(nn.Module):  # type: ignore[misc]
    """Swin's patch merging: the four of a 2 × 2 square side by side, and a linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.reduce = norm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        corners = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
        return self.reduce(self.norm(torch.cat(corners, -1)))


class FlatMerge(Merge):
    """The same with the tokens in one row between the blocks, as in the first implementation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, h, w, c = x.shape
        x = x.view(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 4, 2, 5)
        return self.reduce(self.norm(x.flatten(3))).view(n, h // 2, w // 2, -1)


class Flat(nn.Module):  # type: ignore[misc]
    """A block on an (N, H, W, C) grid whose stream is (N, T, C)."""

    def __init__(self, width: int, shift: bool, grid: tuple[int, int]) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(width), norm(width)
        self.mixer, self.mlp, self.grid = Windows(width, shift), mlp(width, 2 * width), grid

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = x.shape
        x = x.flatten(1, 2)
        y = self.norm1(x).view(shape)
        x = x + self.mixer(y).flatten(1, 2)
        return (x + self.mlp(self.norm2(x))).view(shape)


class Swin(Network):
    """Liu 2021, two stages of two blocks each: a grid of 4 × 8, then 2 × 4. ``flat``: the stream is (N, T, C)."""

    size = (4 * PATCH, 8 * PATCH)
    stream = "blocks.4.norm1"

    def __init__(self, width: int = 8, flat: bool = False) -> None:
        super().__init__()
        self.flat = flat
        self.patch, self.norm = nn.Conv2d(3, width, PATCH, PATCH), norm(width)
        wide = 2 * width
        if flat:
            first: list[nn.Module] = [Flat(width, s, (4, 8)) for s in (False, True)]
            second: list[nn.Module] = [Flat(wide, s, (2, 4)) for s in (False, True)]
            self.blocks = nn.Sequential(*first, FlatMerge(width), *second)
        else:
            first = [Block(width, Windows(width, s)) for s in (False, True)]
            second = [Block(wide, Windows(wide, s)) for s in (False, True)]
            self.blocks = nn.Sequential(*first, Merge(width), *second)
        self.last_norm, self.head = norm(wide), nn.Linear(wide, CLASSES)
        self.finish()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.norm(self.patch(x).permute(0, 2, 3, 1)))
        return self.head(self.last_norm(x).mean((1, 2)))

    def to_grid(self, x: Any) -> Any:
        return x.reshape(len(x), 2, 4, -1).transpose(0, 3, 1, 2)


class Padded(Network):
    """Two stages of two blocks on a grid of odd sides, which is padded to even ones before patches are merged."""

    stream = "blocks.4.norm1"

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.patch, wide = nn.Conv2d(3, width, PATCH, PATCH), 2 * width
        first = [Block(width, Attention(width, 2)) for _ in range(2)]
        second = [Block(wide, Attention(wide, 2)) for _ in range(2)]
        self.blocks = nn.Sequential(*first, Merge(width), *second)
        self.last_norm, self.head = norm(wide), nn.Linear(wide, CLASSES)
        self.finish()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x)
        h, w = x.shape[2:]
        x = self.blocks[:2](x.flatten(2).transpose(1, 2))
        x = F.pad(x.reshape(x.shape[0], h, w, -1), (0, 0, 0, w % 2, 0, h % 2))
        x = self.blocks[3:](self.blocks[2](x).flatten(1, 2))
        return self.head(self.last_norm(x).mean(1))

    def to_grid(self, x: Any) -> Any:
        return x.transpose(0, 2, 1).reshape(len(x), -1, 2, 3)


class PaddedByNothing(Padded):
    """The same on a grid of even sides: the padding has no width."""

    size = (4 * PATCH, 6 * PATCH)


class Pooled(Padded):
    """The same with a pooling between the stages in the place of merging."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x)
        h, w = x.shape[2:]
        x = self.blocks[:2](x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape[0], -1, h, w)
        x = F.avg_pool2d(x, 2, ceil_mode=True).flatten(2).transpose(1, 2).repeat(1, 1, 2)
        return self.head(self.last_norm(self.blocks[3:](x)).mean(1))


class MobileViT(Network):
    """Mehta 2022: a transformer over the pixels of the same place in patches of 2 × 2, between convolutions."""

    size = (16, 24)
    stream = "pool"

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.SiLU(), nn.Conv2d(width, width, 3, 2, 1), nn.SiLU())
        self.before, self.blocks = nn.Conv2d(width, width, 3, padding=1), Block(width, Attention(width, 2))
        self.norm = norm(width)
        self.after, self.fuse = nn.Conv2d(width, width, 1), nn.Conv2d(2 * width, width, 3, padding=1)
        self.last, self.act = nn.Conv2d(width, 2 * width, 1), nn.SiLU()
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(2 * width, CLASSES)
        self.finish()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        n, c, h, w = x.shape
        y = self.before(x).reshape(n * c, h // 2, 2, w // 2, 2).transpose(2, 3)
        y = y.reshape(n, c, h * w // 4, 4).permute(0, 3, 2, 1).reshape(n * 4, h * w // 4, c)
        y = self.norm(self.blocks(y))
        y = y.reshape(n, 4, h * w // 4, c).permute(0, 3, 2, 1).reshape(n * c * h // 2, w // 2, 2, 2)
        y = self.after(y.transpose(1, 2).reshape(n, c, h, w))
        y = self.act(self.last(self.fuse(torch.cat([x, y], 1))))
        return self.head(self.pool(y).flatten(1))

    def to_grid(self, x: Any) -> Any:
        return x


NETS = {
    "vit": ViT,
    "deit_distilled": lambda: ViT(leading=2, attention=TorchAttention),
    "vit_registers_behind": lambda: ViT(trailing=3),
    "vit_mean": lambda: ViT(leading=0),
    "vit_unfold": lambda: ViT(embed="unfold"),
    "vit_columns": ColumnOrder,
    "mixer": lambda: ViT(leading=0, attention=TokenMixing),
    "mixer_of_convolutions": lambda: ViT(leading=0, attention=ConvolutionOverTokens),
    "swin": Swin,
    "swin_flat": lambda: Swin(flat=True),
    "padded": Padded,
    "padded_by_nothing": PaddedByNothing,
    "pooled": Pooled,
    "mobilevit": MobileViT,
}


@functools.cache
def net(name: str) -> Any:
    """The network ``name``."""
    return NETS[name]()


@functools.cache
def model(name: str, exporter: exports.Exporter, dtype: Any = torch.float32, dynamic_batch: bool = True) -> bytes:
    """The same as an ONNX model, exported once."""
    network = copy.deepcopy(net(name)).to(dtype)
    x = torch.zeros(2 if dynamic_batch else 1, 3, *network.size, dtype=dtype)
    return exports.export(network, x, exporter, dynamic_batch=dynamic_batch)
