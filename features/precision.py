"""Tell whether bf16 and int8 pay, which the processor must multiply natively, and how many of its kernels are kept."""

from __future__ import annotations

import os
from typing import Final

import torch

# oneDNN keeps a kernel for each shape that it has multiplied, 1,024 of them, and histories have hundreds of lengths:
# what is kept lies between the blocks of later batches, and the heap grows by a GiB. Read at the first product,
# after which it is too late.
KERNELS = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
os.environ.setdefault(KERNELS, "64")


# levels of instructions, as the variable names them, that multiply bf16 in software; of those of int8 the products of
# some lose what does not fit into 16 bits
LEVEL: Final = "ONEDNN_MAX_CPU_ISA"
_WITHOUT_BF16: Final = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"}

_WITHOUT_INT8: Final = {"SSE41", "AVX", "AVX2", "AVX512_CORE"}


def native_bf16() -> bool:
    """Return whether this processor multiplies bf16 in hardware; elsewhere bf16 is slower than fp32.

    False where torch cannot say, where it was built without oneDNN, which makes these products, and where
    ONEDNN_MAX_CPU_ISA keeps oneDNN from the instructions.
    """
    return _multiplies(_WITHOUT_BF16, "avx512_bf16", "amx_bf16", "bf16")


def native_int8() -> bool:
    """Return whether this processor multiplies int8 in hardware and adds it in int32, so that nothing is lost.

    False where `native_bf16` is False for want of an answer.
    """
    return hasattr(torch, "_int_mm") and _multiplies(_WITHOUT_INT8, "avx512_vnni", "avx_vnni", "amx_int8")


def _multiplies(without: set[str], *instructions: str) -> bool:
    asked = getattr(torch.cpu, "get_capabilities", None)
    if asked is None or not torch.backends.mkldnn.is_available():
        return False
    if os.environ.get(LEVEL, "").upper() in without:
        return False
    capabilities = asked()
    return any(capabilities.get(name) for name in instructions)


def amx() -> bool:
    """Return whether this processor multiplies bf16 in matrix units (AMX), whose kernels take longest to make."""
    asked = getattr(torch.cpu, "get_capabilities", None)
    return native_bf16() and asked is not None and bool(asked().get("amx_bf16"))


def activation_dtype(precision: str, device: torch.device | None = None) -> torch.dtype:
    """Precision of training and encoding alike: as asked for ("bf16", "fp32"), or bf16 where it is native ("auto").

    `device` None: the processor.
    """
    if device is None or device.type == "cpu":
        native = native_bf16()
    else:
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    bf16 = native if precision == "auto" else precision == "bf16"
    return torch.bfloat16 if bf16 else torch.float32
