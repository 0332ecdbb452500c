"""Run 说的话：从哪里接着练，哪些超参数不同，存到了哪里。"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from companion.run._order import Inexact
from companion.run._position import Position


def continues(folder: Path, position: Position) -> str:
    """接着练时的第一句。"""
    calls = position.calls
    if position.closed:
        where = f"从第 {position.epoch + 1} 轮开头（已练 {position.step} 步）"
    elif calls and calls[-1].after is None and calls[-1].done != calls[-1].length:
        done = calls[-1].done
        where = f"从第 {position.epoch} 轮第 {done + 1} 批（第 {position.step + 1} 步）"
    else:
        where = f"从第 {position.epoch} 轮的各批之后（已练 {position.step} 步）"
    return f"继续 {folder}：{where}接着练。"


def differences(
    saved: Mapping[str, Any],
    now: Mapping[str, Any],
    optimizer: Collection[str] = (),
    rates: Collection[str] = (),
) -> str:
    """超参数与存档不同的几项；都相同就是空串。

    ``optimizer`` 是哪几项来自优化器；``rates`` 是调度器记着学习率的地方。
    """
    now = json.loads(json.dumps(now))  # 元组成了列表，与存的一样
    names = [name for name in now if name in saved and now[name] != saved[name]]
    if not names:
        return ""
    listed = "、".join(f"{name} 存档 {saved[name]}，现在 {now[name]}" for name in names)
    used = [f"{name} = {saved[name]}" for name in names if name in optimizer]
    tail = (
        f"（优化器的状态来自存档，用的是 {'、'.join(used)}；要换新值，恢复后改 "
        f"{'，还有 '.join(['optimizer.param_groups', *rates])}）"
        if used
        else ""
    )
    return f"超参数与存档不同：{listed}{tail}。"


def inexact(why: Inexact) -> str:
    """这次运行断了再接，不能一位不差。"""
    when = "接着练（从一轮开头也一样）" if why.always else "从一轮中间接着练"
    return f"{when}，结果不保证与不中断时相同：{why.reason}。{why.hint}。"


def left(name: str, path: Path, position: Position) -> str:
    """收到信号，存好了。"""
    return (
        f"{name}：已存到 {path}（第 {position.epoch} 轮，共 {position.step} 步）。"
        "接着练：同样的程序，Run(…, resume=True)。"
    )


def no_best(best: str | None, names: list[str]) -> str:
    """问最好的一轮，却没有那一列。"""
    return (
        f"load_best 应有 best= 那一列（{best!r}）的数，实际记下的列是 "
        f"{'、'.join(names) or '空的'}。请从第一轮起就把 best= 写成其中一列，或 run.log 记下它："
        "没写的时候练的，只留最近几个存档。"
    )


def best_is_gone(best: str | None, epoch: int) -> str:
    """知道哪一轮最好，它的存档却不在了。"""
    return (
        f"按 {best}，第 {epoch} 轮最好，它的存档却没有了，或者坏了：练它的时候 best= 若不是 "
        f'{best}，就不会另外留着。写着 best="{best}" 往下练，更好的一轮会留住；'
        "非要这一轮，请换一个目录从头练。"
    )


def use_average(name: str, given: bool, sharded: bool) -> str:
    """``load_best`` 之后：定最好的一轮，用的是滑动平均，模型里装的却不是。"""
    way = f"with {name}.average(): …"
    if sharded:
        way = "分片的存档只装得回模型，这里用不了"
    elif not given:
        way = f"{name} = EMA(model)，Run(…, {name}={name})，再 load_best()，然后 {way}"
    return (
        f"存档里有 EMA（{name}）：fit 评估、定最好的一轮，用的是它的平均；"
        f"模型装上的是没有平均的权重。要用平均：{way}。"
    )


def another_world(saved: int, now: int) -> str:
    """进程数变了。"""
    return (
        f"存档来自 {saved} 个进程，现在是 {now} 个：随机数（如 dropout 的）与不中断时不同；"
        "用 loaders() 的话，样本的次序不变。"
    )


def finished(folder: Path, position: Position) -> str:
    """没有要练的了。"""
    if position.stopped:
        return f"{folder} 已在第 {position.epoch} 轮按 run.stop() 停下；想往下练，把轮数改大。"
    return f"{folder} 已经练完 {position.epoch} 轮，没有要练的；想多练，把轮数改大。"


def misplaced(running: bool) -> str:
    """``batches`` 用错了地方。"""
    if not running:
        return "run.batches 应在 for epoch in run.epochs(…) 的循环体里用，实际在外面。"
    return (
        "上一个 run.batches 还没有走完，实际又开了一个。请先走完；要成对地取，"
        "把两个数据集合成一个：loaders(torch.utils.data.StackDataset(a, b), batch_size=…)。"
    )


def not_saved(epoch: int, last: str = "") -> str:
    """循环没有走到一轮之末；``last`` 是最后的存档。"""
    where = f"；接着练，从最后的存档 {last} 开始。" if last else "，还一个存档也没有。"
    return f"第 {epoch} 轮没有走到收尾{where}想存完再停，用 run.stop()。"


def ran_twice(epoch: int, changes: list[str]) -> str:
    """从一轮中间接着练，``run.batches`` 之前的代码又改了东西。"""
    more = f" 等 {len(changes)} 处" if len(changes) > 3 else ""
    return (
        f"第 {epoch} 轮从中间接着练，run.batches 之前的代码又执行了一遍，改了："
        f"{'、'.join(changes[:3])}{more}。结果不保证与不中断时相同。"
        "请把它移到各批之后（一轮之末），或写成只由 epoch 决定。"
    )


def forgotten(kinds: Collection[str]) -> str:
    """一直在更新，却没有交给 Run 的优化器。"""
    return (
        f"{'、'.join(sorted(kinds))} 没有交给 Run，它的状态不会存，接着练时会从头算起。"
        "请加进去：Run(…, 名字=优化器)。"
    )


def unusable(folder: Path, why: str) -> str:
    """这个 Run 不能再用了。"""
    return f"{folder} 的这个 Run 不能再用：{why}。请重建模型、优化器和 Run(…, resume=True)。"


def received(name: str, near_a_step: bool) -> str:
    """收到信号时就说：停在哪里。"""
    where = "练完这一步，存好就停" if near_a_step else "这一轮收尾（验证等）之后，存好就停"
    return f"收到 {name}：{where}；再来一次，立即停，上一份存档之后的要重练。"


def already_used() -> str:
    """新的运行，旧的优化器：多半是上次中断之后，只重跑了建 Run 的那一格。"""
    return "优化器在这次运行之前已经更新过参数，现在是接着它练；要从头练，请先重建模型和优化器。"


def nothing_changed(epoch: int) -> str:
    """一轮练完，交给 Run 的模型还是老样子。"""
    return (
        f"第 {epoch} 轮里，交给 Run 的模型的参数一个也没有变：训练的是不是另一个模型？"
        "重建模型和优化器之后，Run 也要重建。"
    )


def no_column(best: str, names: list[str]) -> str:
    """一轮练完，``best`` 那一列还没有。"""
    return (
        f"best={best!r} 这一列没有记，定不出最好的一轮；记下的列是 {'、'.join(names)}。"
        "请改 best=，或 run.log 记下它。"
    )


def best_not_kept(default: str, best: str, higher: bool) -> str:
    """默认的那一列没有记，``best`` 却像是评估出来的。"""
    mode = ', mode="max"' if higher else ""
    return (
        f"没有记 {default}（best= 的默认列），最好的一轮没有另外留着。"
        f'想留最好的一轮，写 Run(…, best="{best}"{mode})。'
    )


def made_again(folder: Path) -> str:
    """练到一半，目录没有了。"""
    return f"{folder}（或其中的 lock）在训练中被删掉了：已重建，接着往里存；删掉的存档回不来了。"


def which_mode(best: str) -> str:
    """像是越大越好的列，却在取最小的。"""
    return f'best={best!r} 现在取的是最小的；越大越好的列应写 mode="max"。'


def not_finite(position: Position) -> str:
    """存下的权重坏了。"""
    return (
        f"第 {position.step} 步：模型的参数里有 nan 或 inf，这一份照存，但最后一份好的不会被删掉。"
    )


def resumes_broken(name: str) -> str:
    """最新的存档里，权重是坏的。"""
    return (
        f"存档 {name} 的参数里有 nan 或 inf：想从最后一份好的接着练，"
        "先移走比那一份新的存档，再把学习率调小。"
    )


def all_corrupt(reason: str) -> str:
    """有存档，却一个也不能用；``reason`` 是最新的一个怎么坏了。"""
    return f"{reason}一个好的也没有：从备份恢复，或换一个目录从头练。"
