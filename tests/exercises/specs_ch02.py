"""第 2 章各题的约定：放开了什么，还有哪些对的写法该放过、错的写法该拒绝。"""

from dataclasses import replace

import torch

from tests.exercises import sly_ch02, sly_ch02_graph
from tests.exercises.attacks import Spec
from tests.exercises.forms_ch02 import (
    _attack,
    _audit,
    _budget,
    _by_formula,
    _clip,
    _ClipRule,
    _flat,
    _hvp,
    _lesson,
    _mean_loss,
    _norms,
    _numeric,
    _sqrt_twice,
    _step,
    _tanh,
    _toward,
)


def _in_rows(f, x, h=1e-4):
    rows = torch.eye(x.numel(), dtype=x.dtype) * h
    flat = [(f(x + e.view_as(x)) - f(x - e.view_as(x))) / (2 * h) for e in rows]
    return torch.stack([slope.reshape(()) for slope in flat]).view_as(x)


def _by_data(w, f, rate):
    loss = f(w)
    (g,) = torch.autograd.grad(loss, w)
    w.data.sub_(rate * g)
    w.grad = None
    return loss.item()


def _slope_by_func(learn, exam, w, lesson, rate):
    step = torch.func.grad(learn)
    return torch.func.grad(lambda t: exam(w - rate * step(w, t)))(lesson)


ALREADY = {"给参数打开 requires_grad": "x 本来就开着：要看斜率"}

SPECS = {
    "numeric_grad": Spec(accept=(_in_rows, lambda f, x, h=1e-4: _numeric(f, x.clone(), h))),
    "step": Spec(pure=False, accept=(_by_data, lambda w, f, rate: _step(w, f, rate))),
    "ledger": Spec(),
    "fgsm": Spec(accept=(lambda *args: _attack(*args),)),
    "grad_shapes": Spec(),
    "tanh": Spec(
        accept=(
            lambda a: _tanh(a, lambda g, u, out: g / u.cosh() ** 2),
            lambda a: _tanh(a, lambda g, u, out: g * (1 - out**2), pack=lambda share: [share]),
        )
    ),
    "in_order_flat": Spec(accept=(lambda last: tuple(_flat(last)),)),
    "audit": Spec(accept=(_audit,)),
    "network_grads": Spec(accept=(_by_formula, lambda *args: tuple(_by_formula(*args)))),
    "smallest_budget": Spec(accept=(_budget,)),
    "toward": Spec(accept=(_toward,)),
    "kept_bytes": Spec(accept=([25600.0, 12800.0, 0.0],)),
    "mean_loss": Spec(accept=(_mean_loss,)),
    "safe_sqrt": Spec(
        skip=ALREADY,
        accept=(
            _sqrt_twice,
            lambda x: _sqrt_twice(x, low=4.0),
            lambda x: x.clamp(min=0).sqrt(),  # clamp 在边上的斜率是 0
        ),
    ),
    "clip_slope": Spec(skip=ALREADY, accept=(_clip, _ClipRule.apply)),
    "ste": Spec(skip=ALREADY),
    "per_sample_norms": Spec(accept=(_norms,)),
    "best_rate": Spec(accept=((2 / 9, 1 / 5, 4 / 5), [0.222, 0.2, 0.8])),
    "lesson_slope": Spec(accept=(_lesson, _slope_by_func)),
    "hvp": Spec(
        accept=(
            _hvp,
            lambda f, w, v: torch.autograd.functional.hvp(f, w, v)[1],
            lambda f, w, v: torch.func.vjp(torch.func.grad(f), w)[1](v)[0],
        )
    ),
}
REFUSE = sly_ch02.REFUSE | sly_ch02_graph.REFUSE
for title, spec in SPECS.items():
    accept, refuse = sly_ch02.ACCEPT.get(title, ()), REFUSE.get(title, ())
    SPECS[title] = replace(spec, accept=spec.accept + accept, refuse=spec.refuse + refuse)
