"""判题的护栏：读者的函数离开时，会话和进来时一样，参数没有被改，结果里没有 NaN。

检查器不必管这些事；哪一题要放开哪一条，用 `exercises._common` 里的 `mutates`、`may_be_nan` 声明。
"""

import contextlib
import copy
import functools
import io
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from companion._common import random_position, random_state_kept
from companion.book._arguments import name_arguments, photograph, require_same_arguments
from companion.book._blank import GRAD, asks_grad, is_blank, is_unwritten, why_none
from companion.book.exercises._common import Rules, Wrong

SEED = 8_191_127_063  # 判题自己的种子，读者不会碰巧也用它


class NotAnswered(Exception):
    """读者的函数还没写：函数体是空的，或者返回了 `...`。"""


@dataclass(frozen=True)
class Switch:
    """torch 的一个全局开关：怎么读，怎么拨，判题时是什么，读者该怎么写才不必动它。"""

    what: str
    read: Callable[[], Any]
    write: Callable[[Any], Any]
    usual: Any
    instead: str

    def put(self, value: Any) -> None:
        if self.read() != value:
            self.write(value)


def _set_device(device: torch.device) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)


SWITCHES = (
    Switch(
        "求导的开关 torch.is_grad_enabled()",
        torch.is_grad_enabled,
        torch.set_grad_enabled,
        True,
        "把不求导的几行放进 with torch.no_grad():，出来就恢复",
    ),
    Switch(
        "默认的 dtype",
        torch.get_default_dtype,
        torch.set_default_dtype,
        torch.float32,
        "不动默认的，造张量时写 dtype=",
    ),
    Switch(
        "默认的设备",
        torch.get_default_device,
        _set_device,
        torch.device("cpu"),
        "不动默认的，造张量时写 device=，或者放进 with torch.device(…):",
    ),
    Switch(
        "确定性模式",
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
        False,
        "删掉 torch.use_deterministic_algorithms，它管的是整个会话",
    ),
    Switch(
        "求导的异常检测",
        torch.is_anomaly_enabled,
        torch.autograd.set_detect_anomaly,
        False,
        "写成 with torch.autograd.detect_anomaly():，出来就恢复",
    ),
)
OWN_GENERATOR = {
    "torch": "自己造一个 torch.Generator().manual_seed(种子)，用 generator= 交给抽数的函数",
    "NumPy": "用 np.random.default_rng(种子) 抽",
    "Python": "用 random.Random(种子) 抽",
}


@contextlib.contextmanager
def untouched() -> Iterator[None]:
    """里面的全局开关和随机数都从固定的样子开始；离开时（出错也一样）读者的会话恢复原样。"""
    before = [switch.read() for switch in SWITCHES]
    try:
        with torch.inference_mode(False), random_state_kept(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The .grad attribute")  # 判词会用中文说
            for switch in SWITCHES:
                switch.put(switch.usual)
            _seed(SEED)
            yield
    finally:
        for switch, value in zip(SWITCHES, before, strict=True):
            switch.put(value)


def _seed(seed: int) -> None:
    """三个全局发生器定同一个种子；加速器的不动：没用过的会被记下来，等启动时再定。"""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def prepare(answer: Any, rules: Rules) -> Any:
    """交给检查器的样子：函数套上护栏，NumPy 的标量换成 Python 的数；容器里的也一样。"""
    ready = _map(answer, lambda value: guard(value, rules) if is_function(value) else value)
    _refuse_nan(ready, rules)
    return ready


def is_function(value: object) -> bool:
    """能当函数叫的：函数、lambda、partial、绑定的方法、有 `__call__` 的对象；类和模型是值。"""
    return callable(value) and not isinstance(value, type | nn.Module)


def guard(function: Callable[..., Any], rules: Rules) -> Callable[..., Any]:
    """包一层：没写完、抛异常、动了会话、改了参数、算出 NaN，都变成判题认得的信号。"""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        given = name_arguments(function, args, kwargs)
        kept = {k: v for i, (k, v) in enumerate(given.items()) if i not in rules.mutates}
        with torch._C.DisableTorchFunction():  # 检查器若在看用了哪些函数，别看见护栏自己的
            before, seed, start = photograph(kept), torch.initial_seed(), random_position()[1:]
            again = _spare(args, kwargs, rules)
        try:
            result = function(*args, **kwargs)
        except (Exception, SystemExit) as error:
            values = "、".join(_describe(value) for value in given.values()) or "无"
            message = f"你的函数出错了：{type(error).__name__}: {one_line(error)}（输入：{values}）"
            if "'NoneType'" in message and asks_grad(function):
                message += f"。{GRAD}。"
            raise Wrong(message) from error
        _require_same_switches()
        with torch._C.DisableTorchFunction():
            if torch.initial_seed() != seed:
                raise Wrong(_reseeded("torch"))
            if random_position()[1:] != start:
                _require_draws(function, again)
            require_same_arguments(before, photograph(kept))
            if is_blank(result) or (result is None and is_unwritten(function)):
                raise NotAnswered
            if result is None:
                raise Wrong(why_none(function))
            result = _map(result, lambda value: value)
            _refuse_nan(result, rules)
        return result

    return guarded


def _require_same_switches() -> None:
    for switch in SWITCHES:
        if (now := switch.read()) != switch.usual:
            switch.put(switch.usual)
            change = f"来时是 {switch.usual}，走时成了 {now}"
            raise Wrong(f"你的函数动了{switch.what}：{change}。改法：{switch.instead}。")


def _require_draws(function: Callable[..., Any], again: tuple[Any, Any] | None) -> None:
    """NumPy 和 Python 的发生器不记种子：换一个起点再叫一次，终点还相同，就是被重设了。"""
    if again is None:
        return
    first = random_position()
    with random_state_kept(), contextlib.redirect_stdout(io.StringIO()):
        _seed(SEED + 1)
        start = random_position()
        with contextlib.suppress(Exception):
            function(*again[0], **again[1])
        end = random_position()
    for name, part in (("NumPy", 1), ("Python", 3)):
        if end[part] == first[part] != start[part]:
            raise Wrong(_reseeded(name))


def _spare(args: Any, kwargs: Any, rules: Rules) -> tuple[Any, Any] | None:
    """再叫一次用的参数；可能被改的先抄一份，抄不了（如生成器）就是 None。"""
    if not rules.mutates:
        return args, kwargs
    try:
        return copy.deepcopy((args, kwargs))
    except Exception:  # 各种类型抄不了时抛的都不同
        return None


def _reseeded(name: str) -> str:
    return f"你的函数重设了 {name} 的全局种子，别处抽的数都跟着变。改法：{OWN_GENERATOR[name]}。"


# —— 结果 ——


def _map(value: Any, change: Callable[[Any], Any]) -> Any:
    """逐个 `change`；NumPy 的标量先换成 Python 的数。"""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (tuple, list):
        return type(value)(_map(part, change) for part in value)
    if type(value) is dict:
        return {key: _map(part, change) for key, part in value.items()}
    return change(value)


def _refuse_nan(value: Any, rules: Rules) -> None:
    if not rules.may_be_nan and (where := _first_nan(value)) is not None:
        place = f"（{where}）" if where else ""
        cause = "多半是 0 除以 0，或者对空的一组求了平均"
        raise Wrong(f"结果里有 NaN{place}，应当都是数。{cause}：打印中间值，看它从哪一步开始。")


def _first_nan(value: Any) -> str | None:
    """第一个 NaN 在哪里，如 ``第 2 项 [0, 3]``；没有就是 None。"""
    if isinstance(value, tuple | list | dict):
        items = value.items() if isinstance(value, dict) else enumerate(value, 1)
        for key, part in items:
            if (where := _first_nan(part)) is not None:
                return f"第 {key} 项 {where}".rstrip()
    elif isinstance(value, Tensor | np.ndarray):
        numbers = torch.as_tensor(value) if _is_numeric(value) else torch.zeros(0)
        numbers = numbers if numbers.layout == torch.strided else numbers.to_dense()
        if len(places := numbers.isnan().nonzero()):
            return str(places[0].tolist()) if numbers.ndim else ""
    elif isinstance(value, float | complex) and value != value:
        return ""
    return None


def _is_numeric(value: Tensor | np.ndarray) -> bool:
    if isinstance(value, Tensor):
        return value.device.type != "meta"
    return value.dtype.kind in "fc"


def _describe(value: object) -> str:
    """一个输入的简短说法：张量说形状和 dtype，别的照写，太长就截断。"""
    if isinstance(value, Tensor):
        return f"形状 {tuple(value.shape)} 的 {str(value.dtype).removeprefix('torch.')} 张量"
    text = " ".join(repr(value).split())  # 模型的 repr 有好几行
    return text if len(text) <= 40 else f"{text[:37]}..."


def one_line(error: BaseException) -> str:
    """异常消息的第一行；张量的错误信息后面常跟着几十行调用栈。"""
    return next(iter(str(error).splitlines()), "")
