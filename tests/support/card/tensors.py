"""Tensors of the simulated card: CPU tensors in its arena that say "cuda:0", and the modes that book what is done.

Two modes of torch do it, entered in every thread. `Placing` answers for devices: it takes `device="cuda:0"` and
`pin_memory=True` from whatever makes a tensor, and moves tensors. `Booking` sees every operator: what it reads and
writes is a kernel of the current stream, a copy, or the host's own work.
"""

import weakref

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from support.card.order import host

DEVICE = torch.device("cuda:0")

_WAITING = {"_local_scalar_dense", "equal", "nonzero", "masked_select", "_unique2"}  # their answer is the host's
_MIXED = {"copy_", "_to_copy", "index", "index_put", "index_put_", "_index_put_impl_"}  # may take tensors of both
_MOVES = {"to", "cpu", "cuda", "pin_memory", "type_as"}


class CardTensor(torch.Tensor):
    """A tensor of the card."""

    card = None
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    device = property(lambda self: DEVICE)

    def data_ptr(self):
        """Remembers whose address it is, for the kernel that is launched with it."""
        address = plain(self).data_ptr()
        if not hasattr(self.card.local, "addressed"):
            self.card.local.addressed = {}
        self.card.local.addressed[address] = weakref.ref(self)
        return address

    def record_stream(self, stream):
        self.card.record_stream(plain(self), stream)

    def __repr__(self):
        return f"CardTensor({self.dtype}, {list(self.shape)})"


def plain(x):
    """x as an ordinary tensor over the same memory."""
    return x.as_subclass(torch.Tensor) if isinstance(x, CardTensor) else x


def found(x):
    """Yield every tensor in arguments or results."""
    if isinstance(x, torch.Tensor):
        yield x
    elif isinstance(x, (list, tuple)):
        for one in x:
            yield from found(one)
    elif isinstance(x, dict):
        for one in x.values():
            yield from found(one)


def mapped(x, change):
    """Arguments or results with `change` applied to every tensor."""
    if isinstance(x, torch.Tensor):
        return change(x)
    if isinstance(x, (list, tuple)):
        parts = [mapped(one, change) for one in x]
        return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)
    if isinstance(x, dict):
        return {name: mapped(one, change) for name, one in x.items()}
    return x


def _is_card(device):
    return device is not None and not isinstance(device, int) and torch.device(device).type == "cuda"


class Booking(TorchDispatchMode):
    """Enters every operator into the order: as a kernel, as a copy, or as work of the host."""

    def __init__(self, card):
        super().__init__()
        self._card = card

    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        card, kwargs, name = self._card, kwargs or {}, f.overloadpacket.__name__
        if getattr(card.local, "running", False):
            return f(*args, **kwargs)
        inputs = [*found(args), *found(kwargs)]
        kinds = [card.arena.kind_of(x) for x in inputs]
        if name == "copy_" and any(kinds):
            return self._copy(f, args, kwargs)
        if name == "_foreach_copy_" and not card.doing("copy"):
            return None
        if "device" not in kinds:
            out = f(*args, **kwargs)
            if "pinned" in kinds:
                reads, writes = self._spans(f, args, kwargs)
                card.order.work(host(), reads, writes)
            return out
        strangers = [x for x, kind in zip(inputs, kinds, strict=True) if kind is None and x.dim() > 0]
        if strangers and name not in _MIXED:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found cuda:0 and cpu! (aten.{name})"
            )
        out = f(*args, **kwargs)
        had = {x.untyped_storage().data_ptr() for x in inputs}
        if name in _WAITING:
            card.kernel(name, *self._spans(f, args, kwargs), lambda: None)
            card.host_waits(card.current().key)
            return out
        fresh = [x for x in found(out) if x.untyped_storage().data_ptr() not in had]
        moved = {id(x): card.arena.like(x, "device", card.current().key) for x in fresh}
        out = mapped(out, lambda x: moved.get(id(x), x))
        made = list(moved.values())
        reads, writes = self._spans(f, args, kwargs, () if name.startswith(("empty", "new_empty")) else made)
        if writes:
            card.kernel(
                name, reads, writes, lambda: self._again(f, args, kwargs, made), ran=True, kept=(args, kwargs, made)
            )
        return out

    @staticmethod
    def _again(f, args, kwargs, made):
        """Repeat an operator in a replay: its results go into the memory of the captured ones."""
        had = {x.untyped_storage().data_ptr() for x in (*found(args), *found(kwargs))}
        out = [x for x in found(f(*args, **kwargs)) if x.untyped_storage().data_ptr() not in had]
        for into, x in zip(made, out, strict=True):
            into.copy_(x)

    def _spans(self, f, args, kwargs, made=()):
        reads, writes = [], []
        named = dict(zip((argument.name for argument in f._schema.arguments), args, strict=False)) | kwargs
        for argument in f._schema.arguments:
            value = named.get(argument.name)
            changed = argument.alias_info is not None and argument.alias_info.is_write
            for x in found(value):
                span = self._card.arena.span_of(x)
                if span is not None:
                    (writes if changed else reads).append(span)
        writes += [span for x in made if (span := self._card.arena.span_of(x)) is not None]
        return reads, writes

    def _copy(self, f, args, kwargs):
        """Copy between host and card, or within one. The host waits unless its memory is pinned."""
        card, (into, x) = self._card, args[:2]
        ways = card.arena.kind_of(into), card.arena.kind_of(x)
        goes_on = (args[2] if len(args) > 2 else kwargs.get("non_blocking", False)) and None not in ways
        reads, writes = self._spans(f, args, kwargs)
        if "device" not in ways:
            f(*args, **kwargs)
            card.order.work(host(), reads, writes)
        elif ways == ("device", "device") or (x.dim() == 0 and ways[1] is None):
            card.kernel("copy_", reads, writes, lambda: f(*args, **kwargs), kept=args)
        else:
            card.kernel(f"{ways[1] or 'pageable'} to {ways[0] or 'pageable'}", reads, writes,
                        lambda: f(*args, **kwargs), kept=args)  # fmt: skip
            if not goes_on:
                card.host_waits(card.current().key)
        return into


class Placing(TorchFunctionMode):
    """Puts tensors on the card: those made with its device, pinned ones, and those moved to it."""

    def __init__(self, card):
        super().__init__()
        self._card = card

    def __torch_function__(self, f, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), getattr(f, "__name__", "")
        x = args[0] if args and isinstance(args[0], torch.Tensor) else None
        with torch._C.DisableTorchFunctionSubclass():
            if x is not None and name in _MOVES:
                return self._moved(x, name, args[1:], kwargs)
            if x is not None and name in ("numpy", "__array__", "tolist"):
                return self._to_host(f, x, args, kwargs)
            return self._placed(f, name, args, kwargs)

    def _placed(self, f, name, args, kwargs):
        """Make a tensor on the device that is asked for, else on that of the operands."""
        card, want = self._card, None
        if _is_card(kwargs.get("device")):
            kwargs["device"], want = "cpu", "device"
        if kwargs.get("pin_memory"):
            want = "pinned"
            del kwargs["pin_memory"]
        if want is not None and name == "as_tensor" and hasattr(args[0], "__cuda_array_interface__"):
            return self._labelled(card.memory_at(args[0].__cuda_array_interface__))
        out = f(*args, **kwargs)
        if want is not None and isinstance(out, torch.Tensor) and card.arena.kind_of(out) != want:
            home = card.current().key if want == "device" else host()[0]
            out = card.arena.like(out, want, home)
            if want == "device" and not name.startswith("empty"):
                span = card.arena.span_of(out)
                from_host = name in ("tensor", "as_tensor")
                card.kernel("pageable to device" if from_host else name, [], [span] if span else [], lambda: None)
                if from_host:
                    card.host_waits(card.current().key)
        return mapped(out, self._labelled) if not isinstance(out, (int, float, bool)) else out

    def _moved(self, x, name, args, kwargs):
        card, here = self._card, self._card.arena.kind_of(x) or "pageable"
        device, dtype, rest = kwargs.pop("device", None), kwargs.pop("dtype", None), []
        for one in args:
            if isinstance(one, torch.Tensor):
                device, dtype = (DEVICE if card.arena.kind_of(one) == "device" else "cpu"), one.dtype
            elif isinstance(one, torch.dtype):
                dtype = one
            elif isinstance(one, (str, torch.device)):
                device = one
            else:
                rest.append(one)
        if name == "type_as":
            device = None
        goes_on = kwargs.get("non_blocking", bool(rest and rest[0]))
        there = {"cpu": "cpu", "cuda": DEVICE}.get(name, device)
        to = "pinned" if name == "pin_memory" else here if there is None else "device" if _is_card(there) else "host"
        if to == here or (to == "host" and here != "device"):
            out = (
                x
                if dtype in (None, x.dtype) and not kwargs.get("copy")
                else torch.Tensor.to(x, dtype or x.dtype, copy=True)
            )
            return self._labelled(out)
        out = torch.empty_strided(x.shape, _strides(x), dtype=dtype or x.dtype)
        if to != "host":
            out = card.arena.like(out, to, card.current().key if to == "device" else host()[0], filled=False)
        elif here == "device":  # torch's dispatch would take an output of a card's operands for the card's
            pass
        out.copy_(plain(x), non_blocking=goes_on)
        return self._labelled(out)

    def _to_host(self, f, x, args, kwargs):
        card = self._card
        kind = card.arena.kind_of(x)
        if kind == "device":
            if f.__name__ != "tolist":
                raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
            return self._moved(x, "cpu", (), {}).tolist()
        if kind == "pinned":
            card.order.work(host(), [span] if (span := card.arena.span_of(x)) else [], [])
        return f(*args, **kwargs)

    def _labelled(self, x):
        if type(x) is torch.Tensor and self._card.arena.kind_of(x) == "device":
            return x.as_subclass(self._card.Tensor)
        return x


def _strides(x):
    """Strides of a copy of x: the same order of dimensions, without gaps."""
    return torch.empty_like(torch.empty_strided(x.shape, x.stride(), device="meta", dtype=x.dtype)).stride()
