"""第 4 章各题的典型错误答案：类型和形状多半是对的，错的是提示里点名的那件事。"""

import copy

import torch
import torch.nn.functional as F


def _sizes(n, valid, test):
    return [n - valid - test, valid, test]


def _order(n, seed):
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def _global_seed(n, valid, test, seed):
    torch.manual_seed(seed)
    return torch.randperm(n).split(_sizes(n, valid, test))


def _three_shuffles(n, valid, test, seed):
    return tuple(_order(n, seed + i)[:size] for i, size in enumerate(_sizes(n, valid, test)))


def _no_zero_grad(model, inputs, targets, optimizer):
    loss = F.cross_entropy(model(inputs), targets)
    loss.backward()
    optimizer.step()
    return loss.item()


def _zero_too_late(model, inputs, targets, optimizer):
    loss = F.cross_entropy(model(inputs), targets)
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    return loss.item()


def _softmax_twice(model, inputs, targets, optimizer):
    loss = F.cross_entropy(model(inputs).softmax(1), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def _one_step(model, inputs, targets, optimizer, twice=False):
    loss = F.cross_entropy(model(inputs), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if twice:
        optimizer.step()
    return loss


def _loss_after(model, inputs, targets, optimizer):
    _one_step(model, inputs, targets, optimizer)
    return F.cross_entropy(model(inputs), targets).item()


def _accuracy(model, loader, *, switch=True, restore=True, grad=False, weigh=True, scale=1):
    before, right, total, shares = model.training, 0, 0, []
    if switch:
        model.eval()
    with torch.set_grad_enabled(grad):
        for inputs, targets in loader:
            hits = (model(inputs).argmax(1) == targets).sum().item()
            right, total = right + hits, total + len(targets)
            shares.append(hits / len(targets))
    if restore:
        model.train(before)
    return scale * (right / total if weigh else sum(shares) / len(shares))


def _one_epoch(model, batches, held, optimizer):
    """训练一轮，返回验证部分的（损失，准确率）；章里的 my_fit 走一轮。"""
    model.train()
    for inputs, targets in batches:
        _one_step(model, inputs, targets, optimizer)
    model.eval()
    inputs, targets = held[0]
    with torch.no_grad():
        scores = model(inputs)
    right = (scores.argmax(1) == targets).float().mean().item()
    return F.cross_entropy(scores, targets).item(), right


def _fit_until(
    model,
    batches,
    held,
    optimizer,
    epochs,
    patience,
    *,
    keep=lambda model: copy.deepcopy(model.state_dict()),
    later=0,
    ties=False,
    start=0,
    load="always",
    by="loss",
    row=lambda row: row,
):
    history, best, kept, rows = [], 0, None, []
    for epoch in range(epochs):
        history.append(_one_epoch(model, batches, held, optimizer))
        rows.append(row(history[-1]))
        against = history[-2:-1] if by == "previous" else history[best : best + 1]
        if kept is None or _better(history[-1], against[0], by, ties):
            best, kept = epoch, keep(model)
        if epoch - best >= patience + later:
            if load == "before break":
                model.load_state_dict(kept)
            break
    if load == "always":
        model.load_state_dict(kept, strict=False)
    return rows, best + start


def _better(now, then, by, ties):
    if by == "accuracy":
        return now[1] > then[1]
    return now[0] <= then[0] + 1e-6 if ties else now[0] < then[0] - 1e-6


def _parameters_only(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def _l1_after(moved, step):
    return moved - step * moved.sign()


def _soft(moved, step):
    return moved.sign() * (moved.abs() - step).relu()


WRONG = {
    "three_way": [
        lambda n, valid, test, seed: torch.arange(n).split(_sizes(n, valid, test)),
        _global_seed,
        _three_shuffles,  # 打乱三次
        lambda n, valid, test, seed: _order(n, 0).split(_sizes(n, valid, test)),
        lambda n, valid, test, seed: _order(n, seed).split([valid, test, n - valid - test]),
    ],
    "num_steps": [
        lambda n, batch, epochs, drop_last=False: n // batch * epochs,
        lambda n, batch, epochs, drop_last=False: epochs,  # 一轮改一次
        lambda n, batch, epochs, drop_last=False: -(-n // batch) * epochs,  # 不看 drop_last
        lambda n, batch, epochs, drop_last=False: (
            n // batch * epochs if drop_last else -(-n * epochs // batch)
        ),  # 零头攒到下一轮
    ],
    "epoch_loss": [
        lambda losses, sizes: sum(losses) / len(losses),
        lambda losses, sizes: sum(a * b for a, b in zip(losses, sizes, strict=True)),
        lambda losses, sizes: sum(a * b for a, b in zip(losses, sizes, strict=True)) / len(losses),
    ],
    "train_step": [
        _no_zero_grad,
        _zero_too_late,
        _softmax_twice,
        _one_step,  # 返回张量
        lambda *args: _one_step(*args, twice=True).item(),
        _loss_after,
    ],
    "accuracy": [
        lambda model, loader: _accuracy(model, loader, weigh=False),  # 各批平均
        lambda model, loader: _accuracy(model, loader, switch=False),
        lambda model, loader: _accuracy(model, loader, restore=False),
        lambda model, loader: _accuracy(model, loader, grad=True),
        lambda model, loader: _accuracy(model, loader, scale=100.0),
    ],
    "grad_logits": [
        (0.58, 0.21, 0.21),  # 没有减 onehot
        (0.42, -0.21, -0.21),  # 符号反了
        (-0.42, 0.21, 0),  # 漏了一格
        (-0.42, 0.42, 0.0),
        [-0.42],
        "p - 1",
    ],
    "fit_until": [
        lambda *args: _fit_until(*args, keep=lambda model: model.state_dict()),  # 没有 clone
        lambda *args: _fit_until(*args, later=1),  # 晚一轮
        lambda *args: _fit_until(*args, later=-1),  # 早一轮
        lambda *args: _fit_until(*args, keep=_parameters_only),  # 漏了缓冲区
        lambda *args: _fit_until(*args, start=1),  # 从 1 数
        lambda *args: _fit_until(*args, ties=True),  # 并列取了最晚的
        lambda *args: _fit_until(*args, by="accuracy"),  # 按准确率挑
        lambda *args: _fit_until(*args, by="previous"),  # 和上一轮比
        lambda *args: _fit_until(*args, load="before break"),  # 轮数用完就没装回
        lambda *args: _fit_until(*args, row=lambda row: [row]),  # append(my_fit(..., 1))
        lambda *args: _fit_until(*args, row=lambda row: row[0]),  # 只记损失
        lambda *args: _fit_until(*args)[0],  # 只返回 history
    ],
    "two_classes": [
        (0.27, 0.31, 1.31),  # p_0
        (0.73, 1.31, 0.31),  # 损失反了
        (0.73, -0.31, -1.31),  # 没有变号
        (0.73, 0.14, 0.57),  # 以 10 为底
        (0.73, 0.27, 0.73),  # 1 - p
        (0.67, 0.41, 1.10),  # 得分占的比例
        (0.73, 0.31, 0.31),
        (0.73, 0.50, 1.31),
        (0.62, 0.48, 0.97),
        (2.72, 0.31, 1.31),
        [0.73],
        (0.73, 0.31, float("inf")),
        "0.73",
    ],
    "l1_step": [
        lambda w, g, lr, lam: w - lr * g,
        lambda w, g, lr, lam: w - lr * g - lam * w.sign(),  # 罚项没有乘学习率
        lambda w, g, lr, lam: w - lr * (g + lam * w),  # L2
        lambda w, g, lr, lam: w - lr * (g + lam * w.abs()),
        lambda w, g, lr, lam: w - lr * (g + lam),
        lambda w, g, lr, lam: w - lr * (g - lam * w.sign()),
        lambda w, g, lr, lam: w - lr * (g + lam * w.sign() / w.numel()),
        lambda w, g, lr, lam: _l1_after(w - lr * g, lr * lam),
        lambda w, g, lr, lam: _soft(w - lr * g, lr * lam),
        lambda w, g, lr, lam: w - lr * (g + lam * torch.where(w >= 0, 1.0, -1.0)),
        lambda w, g, lr, lam: w + lr * (g + lam * w.sign()),  # 往上走
        lambda w, g, lr, lam: g + lam * w.sign(),
        lambda w, g, lr, lam: lr * (g + lam * w.sign()),
        lambda w, g, lr, lam: w - lr * (g + lam / 2 * w.sign()),
        lambda w, g, lr, lam: w.sub_(lr * (g + lam * w.sign())),  # 改了 w
        lambda w, g, lr, lam: (w - lr * (g + lam * w.sign())).sum(),
    ],
}
