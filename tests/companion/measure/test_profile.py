import statistics
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from companion.errors import ArgumentError
from companion.measure import Memory, Timing, measure, memory, op_table
from companion.measure import _profile as profile


class Clock:
    """每读一次走一格的钟：第 i 次计时恰好是 durations[i] 秒。"""

    def __init__(self, durations):
        self.ticks = iter([t for d in durations for t in (0.0, d)])

    def perf_counter(self):
        return next(self.ticks)


def test_measure_reports_median_and_quartiles_in_milliseconds(monkeypatch):
    seconds = [0.001, 0.002, 0.003, 0.004, 0.1]  # 最后一次是意外
    monkeypatch.setattr(profile, "time", Clock(seconds))
    result = measure(lambda: None, warmup=9, repeats=5)
    assert result.median_ms == pytest.approx(3.0)
    q1, _, q3 = statistics.quantiles(seconds, n=4, method="inclusive")
    assert result.iqr_ms == pytest.approx(1e3 * (q3 - q1)) == pytest.approx(2.0)
    assert result.repeats == 5


def test_measure_synchronises_before_and_after_every_timed_call(monkeypatch):
    events = []
    monkeypatch.setattr(profile, "synchronize", events.append)
    measure(lambda: events.append("fn"), device="meta", warmup=1, repeats=2)
    meta = torch.device("meta")
    assert events == ["fn", *[meta, "fn", meta] * 2]


def test_measure_needs_two_repeats_to_speak_of_spread():
    with pytest.raises(ArgumentError, match="repeats 至少为 2"):
        measure(lambda: None, repeats=1)
    with pytest.raises(ArgumentError, match="warmup 不能是负数"):
        measure(lambda: None, warmup=-1)


def test_timing_prints_unit_spread_and_count():
    assert repr(Timing(1.2345, 0.0567, 20)) == "1.23 ms（四分位距 0.057 ms，20 次）"


def test_op_table_counts_the_calls_of_each_operation():
    a, b = torch.ones(64, 64), torch.ones(64, 64)
    table = op_table(lambda: [torch.mm(a, b) for _ in range(5)] + [a + b], rows=100)
    calls = {op.name: op.calls for op in table.rows}
    assert calls["aten::mm"] == 5
    assert calls["aten::add"] == 1


def test_op_table_shares_add_up_to_one_and_the_costliest_comes_first():
    a = torch.ones(64, 64)
    table = op_table(lambda: (a @ a).relu().sum(), rows=100)
    assert sum(op.share for op in table.rows) == pytest.approx(1)
    assert sum(op.self_ms for op in table.rows) == pytest.approx(table.total_ms)
    times = [op.self_ms for op in table.rows]
    assert times == sorted(times, reverse=True)
    assert len(times) == table.kinds


def test_op_table_shows_only_the_rows_asked_for_and_says_how_many_there_are():
    a = torch.ones(8, 8)
    table = op_table(lambda: (a @ a).relu().sum(), rows=2)
    lines = repr(table).splitlines()
    assert len(table.rows) == 2 < table.kinds
    assert len(lines) == 1 + 2 + 1
    assert "（ms）" in lines[0]
    assert f"cpu 上共 {table.kinds} 种" in lines[-1]


def event(name, cpu_us, device_us, device="CPU"):
    return SimpleNamespace(
        key=name,
        count=1,
        self_cpu_time_total=cpu_us,
        self_device_time_total=device_us,
        device_type=SimpleNamespace(name=device),
    )


def test_on_an_accelerator_a_kernel_is_counted_once_with_the_operation_that_launched_it():
    events = [event("aten::mm", 5.0, 3000.0), event("aten::add", 9.0, 1000.0)]
    events += [event("gemm_kernel", 0.0, 3000.0, "CUDA"), event("add_kernel", 0.0, 1000.0, "CUDA")]
    table = profile._table(events, torch.device("meta"), rows=9)
    assert [(op.name, op.self_ms, op.share) for op in table.rows] == [
        ("aten::mm", 3.0, 0.75),
        ("aten::add", 1.0, 0.25),
    ]
    assert table.where == "meta"


def test_a_device_that_reports_no_kernel_times_falls_back_to_those_of_the_cpu():
    table = profile._table([event("aten::mm", 2000.0, 0.0)], torch.device("meta"), rows=9)
    assert (table.rows[0].self_ms, table.where) == (2.0, "cpu")


def test_op_table_needs_at_least_one_row():
    with pytest.raises(ArgumentError, match="rows 至少为 1"):
        op_table(lambda: None, rows=0)


def network():
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    return model, torch.zeros(32, 64)


def test_memory_counts_the_activations_by_hand_with_and_without_the_weights():
    model, x = network()
    activations = 4 * 32 * (64 + 128)  # float32：两个全连接层的输入；ReLU 留的是后一个，不另算
    assert memory(lambda: model(x), exclude=model.parameters()).saved_bytes == activations
    assert memory(lambda: model(x)).saved_bytes == activations + 4 * 128 * 10  # 第二层的权重


def test_memory_frees_what_backward_has_used():
    model, x = network()

    def step():
        model(x).sum().backward()

    once = memory(step, exclude=model.parameters())
    assert memory(lambda: [step(), step(), step()], exclude=model.parameters()) == once
    kept = memory(lambda: [model(x), model(x)], exclude=model.parameters())  # 两个图同时留着
    assert kept.saved_bytes == 4 * 32 * (64 + 128 + 128)  # 输入是同一块内存


def test_memory_without_a_graph_is_zero():
    model, x = network()
    with torch.no_grad():
        assert memory(lambda: model(x)) == Memory(saved_bytes=0, peak_bytes=None)


def test_checkpointing_keeps_only_the_input_of_the_block():
    model, x = network()
    x.requires_grad_(True)
    result = memory(lambda: checkpoint(model, x, use_reentrant=False), exclude=model.parameters())
    assert result.saved_bytes == 4 * 32 * 64


def test_memory_does_not_change_the_gradients():
    model, x = network()
    model(x + 1).sum().backward()
    plain = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    memory(lambda: model(x + 1).sum().backward())
    assert all(map(torch.equal, plain, [parameter.grad for parameter in model.parameters()]))


ACTIVATIONS = 4 * 32 * (64 + 128)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_memory_on_the_meta_device_is_what_it_would_be(device):
    model, x = network()
    model, x = model.to("meta"), x.to("meta")
    found = memory(lambda: model(x), device, exclude=model.parameters())
    assert found == Memory(ACTIVATIONS, None)
    assert memory(lambda: model(x), device).saved_bytes == ACTIVATIONS + 4 * 128 * 10


WRAPPED = {
    "eager": lambda m: torch.compile(m, backend="eager"),
    "aot": lambda m: torch.compile(m, backend="aot_eager"),
    "parallel": nn.DataParallel,
    "layer": lambda m: nn.Sequential(torch.compile(m[0], backend="eager"), *m[1:]),
}


@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # 编译时
def test_memory_of_a_wrapped_model_is_that_of_the_plain_one(kind):
    model, x = network()
    wrapped = WRAPPED[kind](model)
    for _ in range(2):  # 编译的那一次，和之后的
        found = memory(lambda: wrapped(x).sum().backward(), exclude=wrapped.parameters())
        assert found.saved_bytes == ACTIVATIONS


def test_memory_of_sparse_nested_shared_and_expanded_tensors_by_hand():
    table, weight = torch.eye(4).to_sparse(), nn.Parameter(torch.ones(4, 2))
    found = memory(lambda: torch.sparse.mm(table, weight))
    assert found.saved_bytes == 4 * 4 + 2 * 4 * 8  # 4 个数，2 行 int64 的下标
    layer, rows = nn.Linear(8, 2), [torch.ones(2, 8), torch.ones(3, 8)]
    jagged = torch.nested.nested_tensor(rows, layout=torch.jagged)
    found = memory(lambda: layer(jagged), exclude=layer.parameters())
    assert found.saved_bytes == 4 * 5 * 8 + 3 * 8  # 5 行，3 个 int64 的起点
    assert memory(lambda: layer(jagged), exclude=[*layer.parameters(), jagged]).saved_bytes == 0
    data = torch.ones(1000, 8)
    assert memory(lambda: layer(data[:4])).saved_bytes == 4 * 8000  # 一小片，整块都留着
    one = torch.ones(1, 8, requires_grad=True)
    assert memory(lambda: one.expand(100, 8).square()).saved_bytes == 4 * 8


def test_memory_cannot_exclude_what_has_no_shape_yet():
    model = nn.LazyLinear(2)
    with pytest.raises(ArgumentError, match="exclude 里的应已有形状"):
        memory(lambda: model(torch.ones(1, 3)), exclude=model.parameters())


def test_memory_says_what_it_could_not_measure():
    assert repr(Memory(1536, None)) == "为反向留着 1.5 KiB；设备内存的最高点 量不到"
    assert repr(Memory(3 * 2**19, 2**30)) == "为反向留着 1.5 MiB；设备内存的最高点 1024 MiB"


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="没有加速器")
def test_the_peak_on_an_accelerator_holds_at_least_what_is_kept():
    device = torch.accelerator.current_accelerator()
    model, x = network()
    model, x = model.to(device), x.to(device)
    result = memory(lambda: model(x), device)
    assert result.peak_bytes >= result.saved_bytes > 0
    assert op_table(lambda: model(x), device=device).where == device.type
