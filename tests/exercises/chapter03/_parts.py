"""☆ 手术台一节：冻住别的、换掉一种层的典型错误和约定。"""

import copy

from tests.exercises.attacks import Spec

# —— freeze_except ——


def _count(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _by_name(model, part, inside, every=True):
    model.get_submodule(part)
    for name, p in model.named_parameters(remove_duplicate=not every):
        p.requires_grad_(inside(name, part))
    return _count(model)


def _by_prefix(model, part):
    return _by_name(model, part, lambda name, part: name.startswith(part))


def _anywhere(model, part):
    return _by_name(model, part, lambda name, part: part in name.split("."))


def _only_freezes(model, part):
    own = set(model.get_submodule(part).parameters())
    for p in model.parameters():
        if p not in own:
            p.requires_grad_(False)
    return _count(model)


def _freeze(model, part, count=_count):
    kept = model.get_submodule(part)
    model.requires_grad_(False)
    kept.requires_grad_(True)
    return count(model)


def _freezes_first(model, part):
    model.requires_grad_(False)
    model.get_submodule(part).requires_grad_(True)
    return _count(model)


def _freezes_and_evals(model, part):
    model.eval()
    return _freeze(model, part)


def _by_dots(model, part):
    """对的：按点比名字，共用的最后再打开。"""
    model.get_submodule(part)
    named = list(model.named_parameters(remove_duplicate=False))
    for _, p in named:
        p.requires_grad = False
    for name, p in named:
        if f"{name}.".startswith(f"{part}."):
            p.requires_grad = True
    return _count(model)


def _freezes_a_copy(model, part):
    return _freeze(copy.deepcopy(model), part)


def _counts(what):
    def answer(model, part):
        _freeze(model, part)
        return sum(t.numel() for t in what(model.get_submodule(part)))

    return answer


# —— replace ——


def _children(model, old, new):
    """只看最外面一层。"""
    made = 0
    for name, part in list(model.named_children()):
        if isinstance(part, old):
            setattr(model, name, new(part))
            made += 1
    return made


def _deep(model, old, new, made=None):
    """递归，`named_children` 把共用的漏掉一处。"""
    count = 0
    for name, part in list(model.named_children()):
        if isinstance(part, old):
            setattr(model, name, new(part))
            count += 1
        else:
            count += _deep(part, old, new)
    return count


def _each_place(model, old, new):
    """每一处都换，共用的换成几个。"""
    count = 0
    for name, part in list(model._modules.items()):
        if isinstance(part, old):
            setattr(model, name, new(part))
            count += 1
        else:
            count += _each_place(part, old, new)
    return count


def _loop_variable(model, old, new):
    count = 0
    for part in model.modules():
        if isinstance(part, old):
            part = new(part)
            count += 1
    return count


def _replaced(model, old, new, made=None):
    """对的：递归，记着换过的。"""
    made = {} if made is None else made
    for name, part in list(model._modules.items()):
        if isinstance(part, old):
            made[part] = made[part] if part in made else new(part)
            model._modules[name] = made[part]
        else:
            _replaced(part, old, new, made)
    return len(made)


def _counts_places(model, old, new):
    places = [p for p in dict(model.named_modules(remove_duplicate=False)).values()]
    _replaced(model, old, new)
    return sum(isinstance(p, old) for p in places)


def _appends(model, old, new):
    """换上去的放到了最后面。"""
    made = {}
    named = list(model.named_modules(remove_duplicate=False))
    for path, part in named:
        if isinstance(part, old):
            made[part] = made[part] if part in made else new(part)
            parent, _, name = path.rpartition(".")
            delattr(model.get_submodule(parent), name)
            model.get_submodule(parent).add_module(name, made[part])
    return len(made)


def _back_into_new(model, old, new):
    """换上去的里面又找。"""
    count = 0
    for name, part in list(model._modules.items()):
        if isinstance(part, old):
            setattr(model, name, new(part))
            count += 1
        count += _back_into_new(getattr(model, name), old, new)
    return count


def _into_itself(model, old, new, made=None):
    """换上去的里面又找，装进了它自己。"""
    made = {} if made is None else made
    for name, part in list(model._modules.items()):
        if isinstance(part, old):
            made[part] = made[part] if part in made else new(part)
            model._modules[name] = made[part]
        _into_itself(model._modules[name], old, new, made)
    return len(made)


def _exact_type(model, old, new):
    made = {}
    for path, part in list(model.named_modules(remove_duplicate=False)):
        if type(part) is old:
            made[part] = made[part] if part in made else new(part)
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, made[part])
    return len(made)


WRONG = {
    "freeze_except": [
        _by_prefix,
        _anywhere,
        _only_freezes,
        _freezes_first,
        _freezes_and_evals,
        lambda model, part: _by_name(
            model, part, lambda name, part: f"{name}.".startswith(f"{part}."), every=False
        ),
        lambda model, part: _freeze(model, part, lambda m: len(list(m.parameters()))),
        lambda model, part: str(_freeze(model, part)),
        _freezes_a_copy,
        _counts(lambda kept: kept.state_dict().values()),
        _counts(lambda kept: dict(kept.named_parameters(remove_duplicate=False)).values()),
    ],
    "replace": [
        _children,
        _deep,
        _each_place,
        _loop_variable,
        _counts_places,
        _appends,
        lambda model, old, new: (_replaced(model, old, new), model)[1],
        lambda model, old, new: (_replaced(model, old, new), model.eval())[0],
        _exact_type,
        lambda model, old, new: _replaced(copy.deepcopy(model), old, new),
    ],
}

NAMED = [
    ("freeze_except", _freezes_a_copy, "副本", "却没有冻住"),
    ("replace", lambda m, old, new: _replaced(copy.deepcopy(m), old, new), "副本", "里面别再找"),
    ("replace", _exact_type, "isinstance", "里面的层也要找"),
]

SPECS = {
    "freeze_except": Spec(accept=(_freeze, _by_dots)),
    "replace": Spec(accept=(_replaced,), refuse=(_back_into_new, _into_itself)),
}

ANSWERS = {}
MEASURED: set[str] = set()
JUDGED: set[str] = set()
