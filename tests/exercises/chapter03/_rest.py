"""☆ 其余的层一节：典型错误、约定、先猜的答案。"""

import copy

from torch import nn, zeros
from torch.utils.flop_counter import FlopCounterMode

from tests.exercises.attacks import Spec

RIGHT = (18496, 2432, 1179648, 149504)


def _instead(place, value):
    return (*RIGHT[:place], value, *RIGHT[place + 1 :])


def _trace(model, x, leaves=None, keep=False, mode=True, name=str, once=False):
    rows, hooks = [], []
    modes = [(part, part.training) for part in model.modules()]

    def note(path):
        return lambda layer, given, out: rows.append((name(path), tuple(out.shape)))

    for path, part in model.named_modules():
        if leaves(part) if leaves else not list(part.children()):
            hooks.append(part.register_forward_hook(note(path)))
    try:
        model.eval()(x)
    finally:
        for hook in [] if keep else hooks:
            hook.remove()
        for part, was in modes if mode else []:
            part.training = was
    return list(dict.fromkeys(rows)) if once else rows


def _late_name(model, x):
    rows, hooks = [], []
    modes = [(part, part.training) for part in model.modules()]
    for name, part in model.named_modules():
        if not list(part.children()):
            hooks.append(
                part.register_forward_hook(
                    lambda layer, given, out: rows.append((name, tuple(out.shape)))  # noqa: B023
                )
            )
    try:
        model.eval()(x)
    finally:
        for hook in hooks:
            hook.remove()
        for part, was in modes:
            part.training = was
    return rows


def _as_written(model, x):
    """按写在类里的先后。"""
    rows = _trace(model, x)
    order = [name for name, _ in model.named_modules()]
    return sorted(rows, key=lambda row: order.index(row[0]))


def _no_finally(model, x):
    rows, hooks = [], []
    modes = [(part, part.training) for part in model.modules()]

    def note(name):
        return lambda layer, given, out: rows.append((name, tuple(out.shape)))

    for name, part in model.named_modules():
        if not list(part.children()):
            hooks.append(part.register_forward_hook(note(name)))
    model.eval()(x)
    for hook in hooks:
        hook.remove()
    for part, was in modes:
        part.training = was
    return rows


def _modes_lost_on_error(model, x):
    modes = [(part, part.training) for part in model.modules()]
    rows = _trace(model, x, mode=False)
    for part, was in modes:
        part.training = was
    return rows


def _every_hook_gone(model, x):
    rows = _trace(model, x)
    for part in model.modules():
        part._forward_hooks.clear()
    return rows


def _by_train(model, x):
    was = model.training
    rows = _trace(model, x, mode=False)
    model.train(was)
    return rows


def _never_eval(model, x):
    rows, hooks = [], []

    def note(name):
        return lambda layer, given, out: rows.append((name, tuple(out.shape)))

    for name, part in model.named_modules():
        if not list(part.children()):
            hooks.append(part.register_forward_hook(note(name)))
    try:
        model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return rows


def _train_then_put_back(model, x):
    """没有 eval，账本弄脏了再还原。"""
    kept = copy.deepcopy(model.state_dict())
    try:
        return _never_eval(model, x)
    finally:
        model.load_state_dict(kept)


def _walks_twice(model, x):
    _trace(model, x)
    return _trace(model, x)


def _all_at_once(model, x):
    """对的：一个全局的钩子，模型上什么也不挂。"""
    names = {part: name for name, part in reversed(list(model.named_modules()))}
    rows, modes = [], [(part, part.training) for part in model.modules()]

    def note(layer, given, out):
        if layer in names and not list(layer.children()):
            rows.append((names[layer], out.shape))

    hook = nn.modules.module.register_module_forward_hook(note)
    try:
        model.eval()(x)
    finally:
        hook.remove()
        for part, was in modes:
            part.training = was
    return rows


WRONG = {
    "separable": [
        _instead(0, 64 * 288),
        _instead(1, 2336),
        _instead(1, 32 * 289 + 64 * 33),
        _instead(2, 2 * RIGHT[2]),
        _instead(2, 36 * 64 * 288),
        _instead(3, 64 * 2048),
        _instead(3, 64 * (32 * 288 + 2048)),
        RIGHT[:3],
    ],
    "trace_shapes": [
        lambda model, x: _trace(model, x, leaves=lambda part: True),
        lambda model, x: _trace(model, x, leaves=lambda part: isinstance(part, nn.Conv2d)),
        lambda model, x: _trace(model, x, keep=True),
        lambda model, x: _trace(model, x, mode=False),
        lambda model, x: _trace(model, x, name=lambda path: path.upper() + "!"),
        lambda model, x: _trace(model, x, once=True),
        lambda model, x: dict(_trace(model, x)),
        _late_name,
        _as_written,
        _no_finally,
        _modes_lost_on_error,
        _every_hook_gone,
        _never_eval,
        _train_then_put_back,
        _walks_twice,
        lambda model, x: [(name, list(shape)) for name, shape in _trace(model, x)],
    ],
}

SPECS = {
    "separable": Spec(),
    "trace_shapes": Spec(accept=(_trace, _all_at_once), refuse=(_by_train,)),
}


def _most_multiplications():
    layers = {
        "conv2": (nn.Conv2d(16, 32, 3, padding=1), (1, 16, 8, 8)),
        "conv3": (nn.Conv2d(32, 32, 3, padding=1), (1, 32, 4, 4)),
        "head": (nn.Linear(512, 10), (1, 512)),
    }
    counts = {}
    for name, (layer, shape) in layers.items():
        with FlopCounterMode(display=False) as counter:
            layer(zeros(shape))
        counts[name] = counter.get_total_flops()
    double = counts["conv2"] == 2 * counts["conv3"] == max(counts.values())
    return "`conv2`，是 `conv3` 的两倍" if double else "`conv3`，是 `conv2` 的两倍"


ANSWERS = {"who-multiplies": _most_multiplications}
MEASURED = set()
JUDGED = set()
