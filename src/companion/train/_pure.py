"""一个损失函数可不可以多调用几次：有没有状态，看它的代码和它抓着的东西。"""

import dis
from functools import partial
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

_PLAIN = (int, float, str, type(None), tuple, frozenset, torch.dtype, torch.device)
_FIXED = (*_PLAIN, Tensor, type, ModuleType, BuiltinFunctionType)
_REBINDS = {"STORE_GLOBAL", "STORE_DEREF", "DELETE_GLOBAL"}
_WRITES = _REBINDS | {"STORE_ATTR", "STORE_SUBSCR", "DELETE_SUBSCR"}


def is_stateless(call: Any) -> bool:
    """``call`` 的副本多调用几次，别处看不出来：它用到的全局名字和闭包里，只有不会变的东西。

    不会变的是数、字符串、没有就地改过的张量、模块、类，和同样的函数。对象自己的属性随副本走，可以变。
    """
    while isinstance(call, partial):
        call = call.func
    if isinstance(call, FunctionType):
        return _holds_nothing(call, _WRITES, set())
    if isinstance(call, nn.Module):
        own: list[Any] = [type(module).forward for module in call.modules()]
    else:
        own = [getattr(call, "__func__", type(call).__dict__.get("__call__"))]
    return all(_holds_nothing(f, _REBINDS, set()) for f in own if isinstance(f, FunctionType))


def _holds_nothing(function: FunctionType, writes: set[str], seen: set[Any]) -> bool:
    if function.__module__.startswith("torch.") or function in seen:
        return True
    seen.add(function)
    codes = [function.__code__]
    for code in codes:  # 边走边加：里面还有函数、推导式
        codes += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    if any(step.opname in writes for code in codes for step in dis.get_instructions(code)):
        return False
    names = {name for code in codes for name in code.co_names}
    if any(name.endswith("_") and not name.startswith("_") for name in names):  # 就地改张量
        return False
    held = [function.__globals__[name] for name in names & function.__globals__.keys()]
    held += [cell.cell_contents for cell in function.__closure__ or ()]
    functions = [value for value in held if isinstance(value, FunctionType)]
    others = (value for value in held if not isinstance(value, FunctionType))
    return all(isinstance(value, _FIXED) for value in others) and all(
        _holds_nothing(each, _WRITES, seen) for each in functions
    )
