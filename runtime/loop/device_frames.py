"""Frames that stay on the device, for renderers: `__cuda_array_interface__` and `__dlpack__`, without a copy.

PyCUDA, CuPy, Numba and PyTorch wrap them; the structures are those of DLPack 0.8 and of version 3 of the interface.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from typing import Any

CPU, CUDA = 1, 2
_UNSIGNED, _NAME = 1, b"dltensor"


class _Device(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int32), ("index", ctypes.c_int32))


class _Type(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _Type),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


@dataclass(frozen=True)
class DeviceFrames:
    """uint8 [T, H, W, 3] RGB in device memory, complete when it is handed out; not to be written.

    Attributes:
        address: of the first frame.
        shape: T, H, W, 3.
        stride: bytes from one frame to the next.
        owner: keeps the memory alive.
        device: kind and index as DLPack numbers them.
    """

    address: int
    shape: tuple[int, int, int, int]
    stride: int
    owner: object
    device: tuple[int, int] = (CUDA, 0)

    def every(self, step: int, count: int) -> DeviceFrames:
        """At most `count` frames, every `step`-th of these, beginning with the first."""
        frames = min(-(-self.shape[0] // step), count)
        return replace(self, shape=(frames, *self.shape[1:]), stride=self.stride * step)

    @property
    def strides(self) -> tuple[int, int, int, int]:
        """Bytes between neighbours along each axis."""
        _, _, width, channels = self.shape
        return self.stride, width * channels, channels, 1

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """The CUDA array interface, version 3."""
        if self.device[0] != CUDA:
            raise AttributeError("These frames are not in a GPU's memory; use __dlpack__.")
        return {
            "shape": self.shape,
            "strides": self.strides,
            "typestr": "|u1",
            # PyTorch takes no memory that is marked as read-only.
            "data": (self.address, False),
            "version": 3,
            "stream": None,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        """Kind and index of the device, as DLPack numbers them."""
        return self.device

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A DLPack capsule, without a version; the frames are complete, so no stream has to wait for another.

        Raises:
            BufferError: a copy, or another device, is asked for.
        """
        if copy or (dl_device is not None and tuple(dl_device) != self.device):
            raise BufferError("These frames are handed out where they are, without a copy; copy them afterwards.")
        return _capsule(_Holder(self))


class _Holder:
    """The structure behind a capsule, with all that it points to; it lives until the deleter is called."""

    def __init__(self, frames: DeviceFrames) -> None:
        self.frames = frames
        self.shape = (ctypes.c_int64 * 4)(*frames.shape)
        # In elements, which are bytes here.
        self.strides = (ctypes.c_int64 * 4)(*frames.strides)
        tensor = _Tensor(frames.address, _Device(*frames.device), 4, _Type(_UNSIGNED, 8, 1), self.shape, self.strides)
        self.managed = _Managed(tensor, id(self), ctypes.cast(_deleter, ctypes.c_void_p).value)


def _capsule(holder: _Holder) -> Any:
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(holder))
    return _new_capsule(ctypes.addressof(holder.managed), _NAME, ctypes.cast(_destructor, ctypes.c_void_p))


def _delete(managed: Any) -> None:
    """What a consumer calls when it has done with the tensor."""
    _decref(managed.contents.context)


def _end(capsule: int) -> None:
    """A capsule's end: nobody has taken it if it still has its first name."""
    if _is_valid(capsule, _NAME):
        _delete(ctypes.cast(_pointer(capsule, _NAME), ctypes.POINTER(_Managed)))


_deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))(_delete)
_destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_end)
_new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_decref = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(("Py_DecRef", ctypes.pythonapi))
