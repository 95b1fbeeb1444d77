"""The split of a UNet at a skip connection, so that its deep part need not run for every frame (DeepCache, Ma et al.
2023).

The last `layers` layers of the UNet take the deep feature and one skip connection each. These are the first outputs of
the UNet, at the size of the latent: that of its first convolution, then those of its first layers. So with the deep
feature given, only as many layers run at each end:

    unet          x, ...       -> output, deep
    unet_shallow  x, ..., deep -> output

With `deep` of the same call both give the same output. DeepCache takes the feature from an earlier step of the same
picture, and by default keeps one layer; here it is that of an earlier frame at the same step.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..onnx_writing import ExportError

SHALLOW = "unet_shallow"


class DeepSplit:
    """A diffusers UNet and where it is split. The UNet itself is changed only during a call of its shallow part.

    layers  number of last layers that are shallow
    unused  number of parameters that only the deep part has

    Raises ExportError: the UNet has not as many layers at the size of the latent.
    """

    def __init__(self, unet: Any, layers: int) -> None:
        first, last = unet.down_blocks[0], unet.up_blocks[-1]
        most = min(len(first.resnets) + 1, len(last.resnets))
        if not 1 <= layers <= most:
            raise ExportError(f"--cache-deep {layers}: expected 1 to {most}, layers of this UNet at the latent's size")
        self._unet = unet
        self._entered = last.resnets[len(last.resnets) - layers]
        self._channels = self._entered.in_channels - unet.config.block_out_channels[0]
        self._parts = _shallow_parts(first, last, layers)
        shallow = {id(one) for one in self._parts["down_blocks"].parameters()}
        shallow |= {id(one) for one in self._parts["up_blocks"].parameters()}
        deep = [*unet.down_blocks.parameters(), *unet.mid_block.parameters(), *unet.up_blocks.parameters()]
        self.unused = sum(one.numel() for one in deep if id(one) not in shallow)

    def whole(self, network: nn.Module) -> nn.Module:
        """A network that calls the UNet, with the deep feature as its second output."""
        return _WholeUNet(network, self)

    def shallow(self, network: nn.Module) -> nn.Module:
        """A network that calls the UNet, with the deep feature as its last input, in place of the deep part."""
        return _ShallowUNet(network, self)

    @contextmanager
    def noted(self, into: list[Tensor]) -> Iterator[None]:
        """In a call meanwhile, the deep feature is put into a list."""

        def note(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            into.append(args[0][:, : self._channels])  # the rest is the skip connection

        hook = self._entered.register_forward_pre_hook(note)
        try:
            yield
        finally:
            hook.remove()

    @contextmanager
    def replaced(self, deep: Tensor) -> Iterator[None]:
        """A call meanwhile runs the shallow part, on this deep feature."""

        def replace(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return args, {**kwargs, "hidden_states": deep}

        whole = dict(self._unet._modules)
        hook = self._parts["up_blocks"][0].register_forward_pre_hook(replace, with_kwargs=True)
        self._unet._modules.update(self._parts)
        try:
            yield
        finally:
            self._unet._modules.update(whole)
            hook.remove()


class _WholeUNet(nn.Module):
    def __init__(self, network: nn.Module, split: DeepSplit) -> None:
        super().__init__()
        self.network = network
        self._split = split

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """output, deep."""
        deep: list[Tensor] = []
        with self._split.noted(deep):
            output: Tensor = self.network(*inputs)
        return output, deep[0]


class _ShallowUNet(nn.Module):
    def __init__(self, network: nn.Module, split: DeepSplit) -> None:
        super().__init__()
        self.network = network
        self._split = split

    def forward(self, *inputs: Tensor) -> Tensor:
        """The output on the deep feature that is the last input."""
        with self._split.replaced(inputs[-1]):
            output: Tensor = self.network(*inputs[:-1])
        return output


def _shallow_parts(first: Any, last: Any, layers: int) -> dict[str, Any]:
    """The blocks of the shallow part, by name in the UNet. They share the layers of the UNet."""
    ends = _with_layers(first, slice(0, layers - 1), downsamplers=None)
    return {
        "down_blocks": nn.ModuleList([ends] if layers > 1 else []),
        "mid_block": None,
        "up_blocks": nn.ModuleList([_with_layers(last, slice(-layers, None))]),
    }


def _with_layers(block: Any, kept: slice, **parts: None) -> nn.Module:
    """A block of the UNet with some of its layers, which it shares, and other parts replaced."""
    named = {name: getattr(block, name, None) for name in ("resnets", "attentions")}
    fewer = {name: nn.ModuleList(list(layers)[kept]) for name, layers in named.items() if layers is not None}
    twin: nn.Module = copy.copy(block)
    twin._modules = {**block._modules, **fewer, **parts}
    twin._forward_pre_hooks = type(block._forward_pre_hooks)()
    twin._forward_pre_hooks_with_kwargs = type(block._forward_pre_hooks_with_kwargs)()
    return twin


def check_alone(layers: int | None, others: Mapping[str, object]) -> None:
    """Raise ExportError for `--cache-deep` beside a flag, by name, that needs the deep part for every frame."""
    given = [flag for flag, value in others.items() if value]
    if layers is not None and given:
        raise ExportError(
            f"--cache-deep {layers} with {given[0]}: these need its deep part for every frame. Leave one out"
        )
