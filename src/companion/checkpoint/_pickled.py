"""只当数据读的 pickle：它点名的函数和类一个也不找、不调用，只留下名字，由读的人照名字办。

pickle 是一串指令，平常的读法会照着它导入、调用、改属性。这里只有摆弄列表、字典、元组和数的
那些指令；``make(名字, 参数)`` 收到的名字是字符串，进程里的类和函数不会经过这里。
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SCALARS = (str, int, float, bool, complex, bytes, type(None))
MOST = 256 << 20  # pickle 至多这么多字节；张量不在里面

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_GIVEN = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES"),
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NOTHING = {"PROTO", "FRAME", "STOP"}
_LONGEST = 200  # 一个长名字可以反复引用，拼起来会比文件大得多
_BIG = 1 << 60  # 更大的整数做键，能凑出成片相同的散列值，字典就慢得不动了


@dataclass(eq=False, slots=True)
class Name:
    """pickle 点名的一个函数或类，如 ``torch.Size``。"""

    text: str


@dataclass(eq=False, slots=True)
class Made:
    """pickle 要造的一个对象；只记下怎么造，没有造。"""

    name: str
    args: tuple[Any, ...]
    state: Any = None


_KEYS = {str, int, float, bool, type(None), Made}


def read_pickle(
    data: bytes,
    make: Callable[[str, tuple[Any, ...]], Any] = Made,
    load: Callable[[Any], Any] | None = None,
) -> Any:
    """``data`` 里的值；要造的对象是 ``make(名字, 参数)``，另存的东西是 ``load(编号)``。

    Raises:
        Exception: ``data`` 不是 pickle，或有不认得的指令；什么错都会有。
    """
    if len(data) > MOST:
        raise ValueError(f"pickle 应不超过 {MOST} 字节，实际更大")
    machine = _Machine(make, load)
    for opcode, given, _ in pickletools.genops(data):
        machine.step(opcode.name, given)
    (value,) = machine.stack
    return value


class _Machine:
    def __init__(self, make: Callable[..., Any], load: Callable[[Any], Any] | None) -> None:
        self.stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._make, self._load = make, load

    def step(self, name: str, given: Any) -> None:
        """照一条指令做；多数是把一个值放到栈上。"""
        if name in _GIVEN:
            self.stack.append(given)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            self.stack[-_TUPLES[name] :] = [tuple(self._last(_TUPLES[name]))]
        elif name not in _NOTHING:
            action = getattr(self, f"_do_{name.lower()}", None)
            if action is None:
                raise ValueError(f"pickle 里有不该有的指令 {name}")
            action(given)

    def _last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("pickle 的栈空了")
        return self.stack[-count:]

    def _pop(self, kind: type[Any]) -> Any:
        value = self.stack.pop()
        if type(value) is not kind:
            raise ValueError(f"pickle 里这里应是 {kind.__name__}，实际是 {type(value).__name__}")
        return value

    def _top(self, kind: type[Any]) -> Any:
        value = self._pop(kind)
        self.stack.append(value)
        return value

    def _to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self._marks.pop()
        return items

    def _do_mark(self, _: None) -> None:
        self._marks.append(self.stack)
        self.stack = []

    def _do_tuple(self, _: None) -> None:
        items = tuple(self._to_mark())
        self.stack.append(items)

    def _do_empty_list(self, _: None) -> None:
        self.stack.append([])

    def _do_append(self, _: None) -> None:
        item = self.stack.pop()
        self._top(list).append(item)

    def _do_appends(self, _: None) -> None:
        items = self._to_mark()
        self._top(list).extend(items)

    def _do_empty_dict(self, _: None) -> None:
        self.stack.append({})

    def _do_setitem(self, _: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._top(dict)[_checked_key(key)] = value

    def _do_setitems(self, _: None) -> None:
        items = self._to_mark()
        pairs = zip(items[::2], items[1::2], strict=True)
        self._top(dict).update((_checked_key(key), value) for key, value in pairs)

    def _do_global(self, given: str) -> None:
        self.stack.append(Name(given.replace(" ", ".").replace("__builtin__", "builtins")))

    def _do_stack_global(self, _: None) -> None:
        name, module = self._pop(str), self._pop(str)
        if len(name) + len(module) > _LONGEST:
            raise ValueError(f"pickle 里的名字应不超过 {_LONGEST} 个字")
        self.stack.append(Name(f"{module}.{name}"))

    def _do_reduce(self, _: None) -> None:
        args, name = self._pop(tuple), self._pop(Name)
        self.stack.append(self._make(name.text, args))

    _do_newobj = _do_reduce

    def _do_build(self, _: None) -> None:
        state = self.stack.pop()
        made = self._top(Made)
        if made.state is not None:
            raise ValueError("pickle 里一个对象只该有一份状态")
        made.state = state

    def _do_binpersid(self, _: None) -> None:
        if self._load is None:
            raise ValueError("pickle 里不该有另存的东西")
        self.stack.append(self._load(self.stack.pop()))

    def _do_binput(self, given: int) -> None:
        self._memo[given] = self._last(1)[0]

    _do_long_binput = _do_binput

    def _do_memoize(self, _: None) -> None:
        self._memo[len(self._memo)] = self._last(1)[0]

    def _do_binget(self, given: int) -> None:
        self.stack.append(self._memo[given])

    _do_long_binget = _do_binget


def is_simple_key(key: Any) -> bool:
    """``key`` 可以做键：数、字符串、只有它们的短元组；算散列值要不了多久。"""
    items = key if type(key) is tuple else (key,)
    small = all(abs(item) <= _BIG for item in items if type(item) is int)
    return small and len(items) <= 8 and all(type(item) in _KEYS for item in items)


def _checked_key(key: Any) -> Any:
    if not is_simple_key(key):
        raise ValueError(f"pickle 里的键应是数、字符串或短元组，实际是 {type(key).__name__}")
    return key
