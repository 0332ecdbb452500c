"""每个检查器都要扛住的攻击：由章节的解答机械地造出错误的答案，再加几种应当放过的写法。

攻击不认识题目，只认 `Spec` 里声明的约定；没有声明的按最严的算。一次攻击若没有真的改变什么（比如
结果本来就是 0），就不算数：空打的攻击和没有攻击一样。偷看检查器源码的答案（`inspect`、`gc`）
防不住，也不防：读者骗的是自己。
"""

import copy
import functools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from companion._common import random_position
from companion.repro import seed_everything

NAN = float("nan")
JUNK = {
    "字符串": "abc",
    "数": 7.5,
    "空列表": [],
    "空元组": (),
    "字典": {},
    "空张量": torch.zeros(0),
}


@dataclass(frozen=True)
class Spec:
    """一道题的约定，写在 specs_chNN.py 的 SPECS 里；没有写的题按最严的算。"""

    pure: bool = True  # 不许改参数
    random: bool = False  # 结果每次不同
    vectorised: bool = False  # 题面写了“不用循环”
    view: bool = False  # 题面要求视图，抄一份就该判错
    section: tuple[str, ...] = ()  # 本节里原样交上来不该算对的函数
    accept: tuple[Any, ...] = ()  # 应当放过的别种写法
    refuse: tuple[Any, ...] = ()  # 应当拒绝的别种写法
    skip: dict[str, str] = field(default_factory=dict)  # 攻击名 → 为什么不适用


@dataclass
class Attack:
    """一个答案和它应得的判决；`landed` 说这次攻击有没有真的改变什么。"""

    name: str
    answer: Any
    right: bool = False
    landed: bool = False


def attacks(solution: Any, spec: Spec, section: Callable[[str], Any]) -> Iterator[Attack]:
    """由 `solution` 造出的全部攻击；`section` 按名字给出这一节的函数。"""
    if not callable(solution):
        yield from _on_value(solution)
    else:
        for name in spec.section:
            yield Attack(f"交上本节的 {name}", section(name), landed=True)
        yield from _on_result(solution)
        yield from _on_inputs(solution)
        yield from _on_arguments(solution, spec)
        yield from _on_state(solution)
        yield from (_draws(solution) if spec.random else _fixed(solution))
        yield from _equivalent(solution)
        if not spec.view:
            yield _changed(solution, "在内存里不连续", _scattered, right=True)
        if spec.view:
            yield _changed(solution, "抄一份", lambda r: r.clone())
        if spec.vectorised:
            yield Attack("一行一行地循环", _row_by_row(solution), landed=True)
    for i, answer in enumerate(spec.accept, 1):
        yield Attack(f"应放过的写法 {i}", answer, right=True, landed=True)
    for i, answer in enumerate(spec.refuse, 1):
        yield Attack(f"应拒绝的写法 {i}", answer, landed=True)


# —— 结果不对 ——


def _on_result(solution: Any) -> Iterator[Attack]:
    changes = {
        "全换成 0": lambda r: _each(r, torch.zeros_like, lambda v: type(v)(0)),
        "全换成 NaN": lambda r: _each(r, _nan, lambda v: NAN if isinstance(v, float) else v),
        "只做前一半": _half,
        "差 1%": lambda r: _each(r, lambda t: t * 1.01, lambda v: v * 1.01, kind=float),
        "整数差 1": lambda r: _each(r, lambda t: t + 1, lambda v: v + 1, kind=int),
        "真假全反": lambda r: _each(r, torch.logical_not, lambda v: not v, kind=bool),
        "换成 float64": lambda r: _each(r, lambda t: t.to(torch.float64), lambda v: v),
        "换成 float16": lambda r: _each(r, lambda t: t.to(torch.float16), lambda v: v),
        "换成整数": lambda r: _each(r, lambda t: t.long(), int),
        "整数换成小数": lambda r: _each(r, lambda t: t.float(), float, kind=int),
        "数换成张量": lambda r: torch.tensor(r) if isinstance(r, float) else r,
        "数换成字符串": lambda r: str(r) if isinstance(r, int | float) else r,
        "前面多一维": lambda r: _each(r, lambda t: t[None], lambda v: v),
        "后面多一维": lambda r: _each(r, lambda t: t[..., None], lambda v: v),
        "张量换成列表": lambda r: _each(r, lambda t: t.tolist(), lambda v: v),
        "少给一个": lambda r: r[:-1] if isinstance(r, Tensor | tuple | list) and _long(r) else r,
    }
    for name, change in changes.items():
        yield _changed(solution, name, change)
    for name, junk in JUNK.items():
        yield _changed(solution, f"返回{name}", lambda r, junk=junk: junk)
    yield _swallowing(solution)


def _fixed(solution: Any) -> Iterator[Attack]:
    """结果是定的：记住一个、错一个都不行。"""
    yield _changed(solution, "错一个数", _one_off)
    first: list[Any] = []

    def memory(result: Any) -> Any:
        first.append(result.clone() if isinstance(result, Tensor) else copy.deepcopy(result))
        return first[0]

    # 检查器若只认第一次的结果，就只喂了一组输入，或每组的答案都相同
    attack = _changed(solution, "记住第一次的结果", memory)
    attack.landed = True
    yield attack


def _draws(solution: Any) -> Iterator[Attack]:
    """结果是抽出来的：分布不对，或者不是每次新抽的。"""
    seen: dict[str, Any] = {}

    def constant(result: Any) -> Any:
        return seen.setdefault(str((result.shape, result.dtype, result.device)), result.clone())

    def frozen(*args: Any, **kwargs: Any) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return solution(*args, **kwargs)

    yield _changed(solution, "每次给出第一次抽的", constant)
    yield Attack("每次从同一个种子抽", frozen, landed=True)
    changes = {
        "后一半抄前一半": lambda t: torch.cat([t[: len(t) // 2]] * 2 + [t[: len(t) % 2]]),
        "排好序": lambda t: t.sort(0).values,
        "两个两个地重复": lambda t: t[torch.arange(len(t)) // 2 * 2],
        "二十个里有一个是最大的": lambda t: torch.where(_every(t, 20), t.max(), t),
        "二十个里有一个是最小的": lambda t: torch.where(_every(t, 20), t.min(), t),
    }
    for name, change in changes.items():
        yield _changed(solution, name, lambda t, change=change: change(t) if _big(t) else t)


# —— 只对一部分输入对 ——


def _on_inputs(solution: Any) -> Iterator[Attack]:
    lucky = {
        "方的": lambda t: t.ndim < 2 or t.shape[-1] == t.shape[-2],
        "不方的": lambda t: t.ndim < 2 or t.shape[-1] != t.shape[-2],
        "一行的": lambda t: t.ndim < 1 or len(t) == 1,
        "多行的": lambda t: t.ndim < 1 or len(t) > 1,
        "没有负数的": lambda t: not bool((t < 0).any()),
        "没有小数的": lambda t: bool((t == t.round()).all()),
        "从小到大的": lambda t: t.ndim != 1 or torch.equal(t, t.sort().values),
        "没有重复的": lambda t: t.unique().numel() == t.numel(),
        "在内存里连续的": Tensor.is_contiguous,
        "不全是 0 的": lambda t: bool((t != 0).any()),
    }
    for name, holds in lucky.items():
        yield _only_if(solution, f"输入只有是{name}才对", holds)


def _only_if(solution: Any, name: str, holds: Callable[[Tensor], bool]) -> Attack:
    attack = Attack(name, None)

    def answer(*args: Any, **kwargs: Any) -> Any:
        tensors = [torch.as_tensor(v) for v in args if isinstance(v, Tensor | np.ndarray)]
        lucky = all(holds(t) for t in tensors if t.device.type != "meta")
        result = solution(*args, **kwargs)
        if lucky:
            return result
        attack.landed = True
        return _each(result, lambda t: ~t if t.dtype == torch.bool else t + 1, _next)

    attack.answer = answer
    return attack


# —— 改了参数，改了全局 ——


def _on_arguments(solution: Any, spec: Spec) -> Iterator[Attack]:
    yield _after(solution, "拨反模型的 train/eval", _flip)
    yield _after(solution, "拨反一个子模块的 train/eval", _flip_one)
    if spec.pure:
        yield _after(solution, "算完把参数清零", _zero, own=not spec.view)
        yield _after(solution, "给参数打开 requires_grad", _require_grad, own=not spec.view)
        yield _after(solution, "往列表里加一项", _append)


def _on_state(solution: Any) -> Iterator[Attack]:
    changes = {
        "留下 set_grad_enabled(False)": lambda: torch.set_grad_enabled(False),
        "留下默认 float64": lambda: torch.set_default_dtype(torch.float64),
        "留下默认设备 meta": lambda: torch.set_default_device("meta"),
        "留下确定性模式": lambda: torch.use_deterministic_algorithms(True),
        "留下异常检测": lambda: torch.autograd.set_detect_anomaly(True, check_nan=False),
        "重设 torch 的种子": lambda: torch.manual_seed(0),
        "重设 NumPy 的种子": lambda: np.random.seed(0),
        "重设 Python 的种子": lambda: random.seed(0),
        "重设全部种子": lambda: seed_everything(1),
        "搬回旧的发生器状态": lambda: torch.set_rng_state(OLD_STATE),
    }
    for name, change in changes.items():
        yield _after(solution, name, lambda args, change=change: (change(), True)[1])


OLD_STATE = torch.Generator().manual_seed(11).get_state()


# —— 应当放过的 ——


def _equivalent(solution: Any) -> Iterator[Attack]:
    class Callable_:
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return solution(*args, **kwargs)

        def method(self, *args: Any, **kwargs: Any) -> Any:
            return solution(*args, **kwargs)

    def talking(*args: Any, **kwargs: Any) -> Any:
        print("算着呢")
        return solution(*args, **kwargs)

    forms = {
        "有 __call__ 的对象": Callable_(),
        "绑定的方法": Callable_().method,
        "functools.partial": functools.partial(solution),
        "lambda": lambda *args, **kwargs: solution(*args, **kwargs),
        "边算边打印": talking,
    }
    for name, answer in forms.items():
        yield Attack(name, answer, right=True, landed=True)
    changes = {
        "NumPy 标量": lambda r: _each(r, lambda t: t, _to_numpy),
        "NumPy 的 float32 标量": lambda r: np.float32(r) if type(r) is float else r,
        "列表换成元组": lambda r: tuple(r) if type(r) is list else r,
        "元组换成列表": lambda r: list(r) if type(r) is tuple else r,
    }
    for name, change in changes.items():
        yield _changed(solution, name, change, right=True)
    yield _in_double(solution)


def _in_double(solution: Any) -> Attack:
    attack = Attack("用 float64 算完再转回来", None, right=True)

    def answer(*args: Any, **kwargs: Any) -> Any:
        result = solution(*args, **kwargs)
        if not isinstance(result, Tensor) or not result.is_floating_point():
            return result
        if any(isinstance(v, nn.Module) for v in args) or result.device.type == "meta":
            return result
        if any(_aliases(result, v) for v in args if isinstance(v, Tensor)):
            return result  # 要的是视图
        attack.landed = True
        doubles = [
            v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for v in args
        ]
        return solution(*doubles, **kwargs).to(result.dtype)

    attack.answer = answer
    return attack


# —— 答案是值，不是函数 ——


def _on_value(solution: Any) -> Iterator[Attack]:
    wrong = {
        "全换成 0": _each(solution, torch.zeros_like, lambda v: type(v)(0)),
        "每个数差一成": _each(
            solution, lambda t: t * 1.1 + 0.1, lambda v: v * 1.1 + 0.1, kind=float
        ),
        "整数差 1": _each(solution, lambda t: t + 1, lambda v: v + 1, kind=int),
        "最后一项错": _one_off(solution),
        "整数换成小数": float(solution) + 0.5 if type(solution) is int else solution,
        "换成 NaN": _each(solution, _nan, lambda v: NAN if isinstance(v, float) else v),
        "全反过来": solution[::-1] if isinstance(solution, tuple | list | str) else solution,
        "多一项": type(solution)([*solution, 0])
        if isinstance(solution, tuple | list)
        else solution,
        "少一项": solution[:-1] if isinstance(solution, tuple | list) else solution,
        "张量换成 float64": solution.double() if isinstance(solution, Tensor) else solution,
        "张量多一维": solution[None] if isinstance(solution, Tensor) else solution,
        "换成字符串": str(solution),
        "交一个函数": lambda *args: solution,
        **{f"交上{name}": junk for name, junk in JUNK.items()},
    }
    right = {
        "NumPy 标量": _each(solution, lambda t: t, _to_numpy),
        "列表换成元组": tuple(solution) if type(solution) is list else solution,
        "元组换成列表": list(solution) if type(solution) is tuple else solution,
        "torch.Size": torch.Size(solution) if _is_shape(solution) else solution,
    }
    for answers, verdict in ((wrong, False), (right, True)):
        for name, answer in answers.items():
            yield Attack(name, answer, verdict, _differs(solution, answer))


# —— 造攻击的零件 ——


def _changed(solution: Any, name: str, change: Callable[[Any], Any], right: bool = False) -> Attack:
    """解答的结果再经过 `change`；变了才算打中。"""
    attack = Attack(name, None, right)

    def answer(*args: Any, **kwargs: Any) -> Any:
        result = solution(*args, **kwargs)
        altered = change(result)
        attack.landed = attack.landed or _differs(result, altered)
        return altered

    attack.answer = answer
    return attack


def _after(solution: Any, name: str, act: Callable[..., bool], own: bool = False) -> Attack:
    """算完再做一件不该做的事；`own` 先把结果抄出来，免得它跟着参数一起变。"""
    attack = Attack(name, None)

    def answer(*args: Any, **kwargs: Any) -> Any:
        result = solution(*args, **kwargs)
        if own:
            result = _each(result, torch.clone, lambda v: v)
        attack.landed = act(args) or attack.landed
        return result

    attack.answer = answer
    return attack


def _swallowing(solution: Any) -> Attack:
    """解答抛异常时它返回 0；解答在判题时从不抛异常，就没有打中。"""
    attack = Attack("错误都吞掉", None)

    def answer(*args: Any, **kwargs: Any) -> Any:
        try:
            return solution(*args, **kwargs)
        except Exception:
            attack.landed = True
            return torch.zeros(())

    attack.answer = answer
    return attack


def _row_by_row(solution: Any) -> Any:
    def answer(*args: Any) -> Any:
        rows = range(len(args[0]))
        return torch.cat([solution(*(v[i : i + 1] for v in args)) for i in rows])

    return answer


def _each(value: Any, tensor: Any, number: Any, kind: type = object) -> Any:
    """逐个换：张量交给 `tensor`，数交给 `number`；`kind` 限定只换浮点、整数或布尔。"""
    if isinstance(value, Tensor):
        return tensor(value) if issubclass(_kind(value), kind) else value
    if isinstance(value, bool | int | float):
        return number(value) if kind in (object, type(value)) else value
    if type(value) in (tuple, list):
        return type(value)(_each(v, tensor, number, kind) for v in value)
    return value


def _kind(t: Tensor) -> type:
    return bool if t.dtype == torch.bool else float if t.is_floating_point() else int


def _nan(t: Tensor) -> Tensor:
    return torch.full_like(t, NAN) if t.is_floating_point() else t


def _half(value: Any) -> Any:
    if isinstance(value, Tensor) and _long(value):
        value = value.clone()
        value[len(value) // 2 :] = 0
    elif type(value) in (tuple, list) and _long(value):
        half = len(value) // 2
        value = type(value)([*value[:half], *_each(value[half:], torch.zeros_like, lambda v: 0)])
    return value


def _one_off(value: Any) -> Any:
    """最后一个数错了，别的都对。"""
    if isinstance(value, Tensor) and value.numel() and value.device.type != "meta":
        flat = value.clone().reshape(-1)
        flat[-1] = ~flat[-1] if value.dtype == torch.bool else flat[-1] + 1
        return flat.reshape(value.shape)
    if type(value) in (tuple, list) and value:
        return type(value)([*value[:-1], _one_off(value[-1])])
    return _each(value, lambda t: t, _next)


def _next(value: Any) -> Any:
    return not value if isinstance(value, bool) else value + 1


def _long(value: Any) -> bool:
    return (value.ndim > 0 if isinstance(value, Tensor) else True) and len(value) > 1


def _big(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() > 100 and value.device.type != "meta"


def _every(t: Tensor, n: int) -> Tensor:
    return (torch.rand(t.shape) * n < 1).to(t.device)


def _scattered(t: Any) -> Any:
    if not isinstance(t, Tensor):
        return t
    return t.mT.clone(memory_format=torch.contiguous_format).mT if t.ndim > 1 else t


def _to_numpy(value: Any) -> Any:
    return {bool: np.bool_, int: np.int64, float: np.float64}[type(value)](value)


def _is_shape(value: Any) -> bool:
    return type(value) is tuple and all(type(v) is int for v in value)


def _zero(args: tuple[Any, ...]) -> bool:
    done = False
    for value in args:
        if isinstance(value, Tensor | np.ndarray) and bool((value != 0).any()):
            with torch.no_grad():
                value[...] = 0
            done = True
        elif isinstance(value, list) and value:
            value[:] = [0] * len(value)
            done = True
    return done


def _require_grad(args: tuple[Any, ...]) -> bool:
    tensors = [v for v in args if isinstance(v, Tensor) and v.is_floating_point()]
    for value in tensors:
        value.requires_grad_()
    return bool(tensors)


def _append(args: tuple[Any, ...]) -> bool:
    lists = [value for value in args if isinstance(value, list)]
    for value in lists:
        value.append(0)
    return bool(lists)


def _flip(args: tuple[Any, ...]) -> bool:
    modules = [value for value in args if isinstance(value, nn.Module)]
    for module in modules:
        module.train(not module.training)
    return bool(modules)


def _flip_one(args: tuple[Any, ...]) -> bool:
    inner = [list(value.children()) for value in args if isinstance(value, nn.Module)]
    for children in inner:
        children[-1].train(not children[-1].training) if children else None
    return any(inner)


def _aliases(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def _differs(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return True
    if isinstance(a, Tensor):
        if "meta" in (a.device.type, b.device.type):
            return (a.shape, a.dtype) != (b.shape, b.dtype)
        same = a.dtype == b.dtype and a.is_contiguous() == b.is_contiguous() and _equal(a, b)
        return not same or not _aliases(a, b)
    if isinstance(a, tuple | list):
        return len(a) != len(b) or any(map(_differs, a, b))
    return bool(a != b)


# —— 判题环境 ——


def state() -> dict[str, Any]:
    """一次判题前后应当相同的全局状态。"""
    return {
        "求导": torch.is_grad_enabled(),
        "默认 dtype": torch.get_default_dtype(),
        "默认设备": torch.get_default_device(),
        "确定性模式": torch.are_deterministic_algorithms_enabled(),
        "异常检测": torch.is_anomaly_enabled(),
        "线程数": torch.get_num_threads(),
        "随机数": random_position(),
    }


class Inputs:
    """记下检查器喂给解答的输入：全是 0、只有一种数、只有方的，测不出东西。"""

    def __init__(self, solution: Any) -> None:
        self.solution, self.seen = solution, []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.seen.append(copy.deepcopy(args))
        return self.solution(*args, **kwargs)

    def weak(self) -> list[str]:
        """这些输入的毛病，一条一句；[] 是没有毛病。"""
        found = [] if len(self.seen) > 1 else ["只试了一组输入"]
        for i in range(max(map(len, self.seen))):
            values = [args[i] for args in self.seen if len(args) > i]
            arrays = [torch.as_tensor(v) for v in values if isinstance(v, Tensor | np.ndarray)]
            tensors = [t for t in arrays if t.device.type != "meta"]
            found += [f"第 {i + 1} 个参数{problem}" for problem in self._problems(tensors)]
        return found

    @staticmethod
    def _problems(tensors: list[Tensor]) -> Iterator[str]:
        if tensors and all(t.unique().numel() < 2 for t in tensors):
            yield "每次都只有一种数"
        if tensors and all(t.ndim > 1 and t.shape[-1] == t.shape[-2] for t in tensors):
            yield "每次都是方的"
