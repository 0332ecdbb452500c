"""设备：全库只有这个文件写出加速器的名字，别处都拿 ``torch.device`` 用。"""

from typing import Any

import torch
from torch import nn

__all__ = ["device_name", "model_device", "pick_device", "synchronize", "to_device", "widest_float"]


def pick_device() -> torch.device:
    """这台机器上最快的设备：有加速器（GPU 等）就用它，没有就用 CPU。"""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def synchronize(device: torch.device) -> None:
    """等 ``device`` 把已经交给它的活干完；CPU 本来就是干完才返回，什么也不做。"""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def device_name(device: torch.device) -> str:
    """设备的型号，如 ``"NVIDIA H200"``；后端说不出型号时是设备的类型，如 ``"cpu"``。"""
    if device.type == "cpu":
        return "cpu"
    name = getattr(torch.get_device_module(device), "get_device_name", None)
    return device.type if name is None else str(name(device))


def model_device(model: nn.Module) -> torch.device:
    """模型第一个参数所在的设备；没有参数看缓冲区，都没有就是 CPU。"""
    for tensors in (model.parameters(), model.buffers()):
        for tensor in tensors:
            return tensor.device
    return torch.device("cpu")


def to_device(batch: Any, device: torch.device) -> Any:
    """同样结构的一批数据，里面的张量都搬到 ``device`` 上；已经在那里的原样返回。

    元组、列表、字典逐层往里找；自己有 ``.to`` 方法的对象就调用它；其余（如文件名）原样留下。
    """
    if type(batch) is list:  # 默认的 collate 给的，最常见
        return [to_device(value, device) for value in batch]
    if hasattr(batch, "to"):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


def widest_float(device: torch.device) -> torch.dtype:
    """``device`` 上最宽的浮点 dtype，用来累加：``float64``，苹果芯片的 mps 只有 ``float32``。"""
    return torch.float32 if device.type == "mps" else torch.float64
