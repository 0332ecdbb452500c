"""第 4 章各题的约定：放开了什么，还有哪些对的写法该放过、错的写法该拒绝。"""

import random

import numpy as np
import torch
import torch.nn.functional as F

from companion._common import eval_mode
from tests.exercises.attacks import Spec
from tests.exercises.ch04 import _accuracy, _one_step, _order, _sizes


def _rotation(n, valid, test, seed):
    return ((torch.arange(n) + 7 * seed + 3) % n).split(_sizes(n, valid, test))


def _stride(n, valid, test, seed):
    return ((torch.arange(n) * (7 + 2 * seed) + 1) % n).split(_sizes(n, valid, test))


def _one_block_moves(n, valid, test, seed):
    order = torch.arange(n)
    order[: n // 2] = _order(n // 2, seed)  # 只打乱前一半
    return order.split(_sizes(n, valid, test))


def _pairs_together(n, valid, test, seed):
    return torch.arange(n).view(-1, 2)[_order(n // 2, seed)].flatten().split(_sizes(n, valid, test))


def _same_test(n, valid, test, seed):
    order = torch.cat([_order(n - test, seed), torch.arange(n - test, n)])
    return order.split(_sizes(n, valid, test))


def _sorted_train(n, valid, test, seed):
    train, *others = _order(n, seed).split(_sizes(n, valid, test))
    return train.sort().values, *others


def _forked(n, valid, test, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.randperm(n).split(_sizes(n, valid, test))


def _with_python(n, valid, test, seed):
    order = list(range(n))
    random.Random(seed).shuffle(order)
    return list(torch.tensor(order).split(_sizes(n, valid, test)))


def _with_numpy(n, valid, test, seed):
    order = torch.from_numpy(np.random.default_rng(seed).permutation(n))
    return order.split(_sizes(n, valid, test))


def _global_numpy(n, valid, test, seed):
    order = np.random.RandomState(seed).permutation(n)
    np.random.rand()  # 动了 NumPy 的全局随机数
    return torch.from_numpy(order).split(_sizes(n, valid, test))


def _in_eval(model, *args):
    model.eval()
    loss = _one_step(model, *args).item()
    model.train()
    return loss


def _by_hand(model, inputs, targets, optimizer):
    loss = F.cross_entropy(model(inputs), targets)
    model.zero_grad()
    loss.backward()
    with torch.no_grad():
        for p in model.parameters():
            p -= optimizer.param_groups[0]["lr"] * p.grad
    return loss.item()


def _summed(model, inputs, targets, optimizer):
    loss = F.cross_entropy(model(inputs), targets, reduction="sum")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item() / len(targets)


def _clipped(model, inputs, targets, optimizer):
    loss = F.cross_entropy(model(inputs), targets)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    optimizer.step()
    return loss.item()


def _spoils_inputs(model, inputs, targets, optimizer):
    loss = _one_step(model, inputs, targets, optimizer).item()
    inputs.zero_()
    return loss


def _closure(model, inputs, targets, optimizer):
    def closure():
        optimizer.zero_grad()
        loss = F.nll_loss(model(inputs).log_softmax(1), targets)
        loss.backward()
        return loss

    return optimizer.step(closure).item()


def _by_autograd(model, inputs, targets, optimizer):
    loss = F.cross_entropy(model(inputs), targets)
    parameters = list(model.parameters())
    for p, grad in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        p.grad = grad
    optimizer.step()
    return loss.item()


def _looks_twice(model, inputs, targets, optimizer):
    with torch.no_grad():
        before = F.cross_entropy(model(inputs), targets).item()
    _one_step(model, inputs, targets, optimizer)
    return before


def _forgets_momentum(model, inputs, targets, optimizer):
    optimizer.state.clear()
    return _one_step(model, inputs, targets, optimizer).item()


def _freezes(model, *args):
    loss = _one_step(model, *args).item()
    model[0].requires_grad_(False)
    return loss


def _zero_after(model, inputs, targets, optimizer):
    model.train()
    loss = F.cross_entropy(model(inputs), targets)
    optimizer.zero_grad(set_to_none=False)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


def _gathered(model, loader):
    with eval_mode(model), torch.inference_mode():
        pairs = [(model(x).max(1).indices, y) for x, y in loader]
    guesses, truths = (torch.cat(part) for part in zip(*pairs, strict=True))
    return (guesses == truths).double().mean().item()


def _first_batch(model, loader):
    return _accuracy(model, [next(iter(loader))])


def _whole_batches(model, loader):
    right = [_accuracy(model, [batch]) * len(batch[1]) for batch in loader]
    return sum(right) / (len(loader) * loader.batch_size)


def _always_train(model, loader):
    result = _accuracy(model, loader)
    model.train()
    return result


def _by_parts(w, g, lr, lam):
    slope = (w > 0).to(w.dtype) - (w < 0).to(w.dtype)
    return w - lr * (g + lam * slope)


def _by_backward(w, g, lr, lam):
    leaf = w.clone().requires_grad_()
    (leaf.abs().sum() * lam).backward()
    return w - lr * (g + leaf.grad)


SPECS = {
    "three_way": Spec(
        accept=(
            _forked,
            _with_python,
            _with_numpy,
            lambda n, v, t, seed: (
                torch.rand(n, generator=torch.Generator().manual_seed(seed + 99))
                .argsort()
                .split(_sizes(n, v, t))
            ),
        ),
        refuse=(
            _rotation,
            _stride,
            _one_block_moves,
            _pairs_together,
            _same_test,
            _sorted_train,
            _global_numpy,
            lambda n, v, t, seed: _order(n, seed % 2).split(_sizes(n, v, t)),
            lambda n, v, t, seed: [p.sort().values for p in _order(n, seed).split(_sizes(n, v, t))],
        ),
    ),
    "num_steps": Spec(
        accept=(
            lambda n, batch, epochs, drop_last=False: (
                len(range(0, n - batch + 1 if drop_last else n, batch)) * epochs
            ),
            lambda n, batch, epochs, drop_last=False: int(
                (n // batch if drop_last else np.ceil(n / batch)) * epochs
            ),
        ),
        refuse=(
            lambda n, batch, epochs, drop_last=True: (
                n // batch * epochs if drop_last else -(-n // batch) * epochs
            ),  # 默认值反了
            lambda n, batch, epochs, drop_last=False: (
                max(1, n // batch) * epochs if drop_last else -(-n // batch) * epochs
            ),
            lambda n, batch, epochs, drop_last=False: (
                (n // batch + (not drop_last)) * epochs
            ),  # 整除时多一批
        ),
    ),
    "epoch_loss": Spec(
        accept=(
            lambda losses, sizes: float(np.average(losses, weights=sizes)),
            lambda losses, sizes: (
                (torch.tensor(losses) @ torch.tensor(sizes).float()).item() / sum(sizes)
            ),
        ),
        refuse=(
            lambda losses, sizes: max(losses),
            lambda losses, sizes: (
                sum(a * max(sizes) for a, b in zip(losses, sizes, strict=True)) / sum(sizes)
            ),
            lambda losses, sizes: sum(losses[:-1]) / max(1, len(losses) - 1),
        ),
    ),
    "train_step": Spec(
        accept=(_closure, _zero_after, _by_autograd),
        refuse=(
            _in_eval,
            _by_hand,
            _summed,
            _clipped,
            _spoils_inputs,
            _looks_twice,
            _forgets_momentum,
            _freezes,
        ),
    ),
    "accuracy": Spec(
        accept=(_gathered, lambda model, loader: _accuracy(model, list(loader))),
        refuse=(
            lambda model, loader: 0.8,
            _first_batch,
            _always_train,
            _whole_batches,
            lambda model, loader: 1 - _accuracy(model, loader),
        ),
    ),
    "fit_until": Spec(skip={"拨反模型的 train/eval": "题面没有说离开时是哪一种"}),
    "two_classes": Spec(
        accept=((0.731, 0.313, 1.313), [0.73, 0.31, 1.31], torch.tensor([0.73, 0.31, 1.31])),
        refuse=((0.73, 0.30, 1.31), (0.75, 0.31, 1.31), (0.73, 0.31, 1.30)),
    ),
    "l1_step": Spec(
        accept=(
            _by_parts,
            _by_backward,
            lambda w, g, lr, lam: w.sub(g + lam * w.sgn(), alpha=lr),
            lambda w, g, lr, lam: w - lr * g - lr * lam * (w / w.abs()).nan_to_num(),
        ),
        refuse=(
            lambda w, g, lr, lam: w - lr * (g + lam * torch.where(w > 0, 1.0, -1.0)),
            lambda w, g, lr, lam: (1 - lr * lam) * w.sign() - lr * g,
            lambda w, g, lr, lam: w - lam * (g + lr * w.sign()),  # 学习率和 λ 用反
            lambda w, g, lr, lam: w - lr * (g + lam * g.sign()),
        ),
    ),
}
