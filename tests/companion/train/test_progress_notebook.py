"""进度在笔记本里：真的用 nbclient 执行一遍，看它存下了什么。"""

import os
import sys

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

CELLS = {
    "setup": """
import os, time, torch
from torch.nn.functional import cross_entropy
from companion.train import fit

os.environ.pop("COMPANION_PROGRESS", None)

class Batches:
    def __init__(self, seconds, bad=0):
        self.seconds, self.bad, self.given = seconds, bad, 0

    def __len__(self):
        return 10

    def __iter__(self):
        for _ in range(10):
            time.sleep(self.seconds)
            self.given += 1
            if self.given == self.bad:
                raise OSError("读不到")
            yield torch.ones(4, 2), torch.zeros(4, dtype=torch.long)

def train(seconds, epochs=2, bad=0, **more):
    torch.manual_seed(0)
    net = torch.nn.Linear(2, 2)
    how = dict(optimizer=torch.optim.SGD(net.parameters(), lr=0.1), epochs=epochs, **more)
    return fit(net, Batches(seconds, bad), Batches(seconds), loss=cross_entropy, **how)

updates = []
publish = get_ipython().display_pub.publish
def counted(*args, **kwargs):
    updates.append(args)
    return publish(*args, **kwargs)
get_ipython().display_pub.publish = counted
""",
    "slow": "train(0.02);",
    "again": "print(len(updates)); train(0.012);",
    "talking": "train(0.01, on_epoch=lambda record: print('我的话', record['epoch']));",
    "many": """
updates.clear()
start = time.monotonic()
print(len(train(0, 150)), len(updates), 10 * (time.monotonic() - start))
""",
    "failing": "train(0.012, bad=15)",
    "plain": "os.environ['COMPANION_PROGRESS'] = 'plain'\ntrain(0);",
    "broken": """
del os.environ["COMPANION_PROGRESS"]
def refuse(*args, **kwargs):
    raise RuntimeError("前端断了")
get_ipython().display_pub.publish = refuse
print(len(train(0.015)))
""",
}


@pytest.fixture(scope="module")
def stored():
    """单元的名字 → 存进笔记本的输出。"""
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS.values()]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = nbclient.NotebookClient(notebook, timeout=60, allow_errors=True)
    client.execute(env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    outputs = {name: cell.outputs for name, cell in zip(CELLS, cells, strict=True)}
    assert outputs["setup"] == []
    return outputs


def shown(output):
    assert (output.output_type, list(output.data)) == ("display_data", ["text/plain"])
    return output.data["text/plain"].split("\n")


def streamed(outputs):
    assert {output.output_type for output in outputs} <= {"stream"}
    return "".join(output.text for output in outputs)


def test_a_whole_training_is_stored_as_one_output_with_a_line_an_epoch(stored):
    (output,) = stored["slow"]
    assert [line[:12] for line in shown(output)] == ["第 1/2 轮  tra", "第 2/2 轮  tra"]
    assert "\r" not in output.data["text/plain"]


def test_the_bar_was_redrawn_many_times_before(stored):
    assert int(stored["again"][0].text) >= 5


def test_the_stored_output_is_the_same_whatever_the_speed(stored):
    assert stored["again"][1:] == stored["slow"]


def test_it_is_the_text_that_a_file_gets(stored):
    assert streamed(stored["plain"]).splitlines() == shown(stored["slow"][0])


def test_what_the_user_prints_comes_after_it_and_stays(stored):
    first, *rest = stored["talking"]
    assert [first] == stored["slow"]
    assert streamed(rest) == "我的话 1\n我的话 2\n"


def test_many_short_epochs_are_all_there_and_are_not_all_sent(stored):
    first, *rest = stored["many"]
    assert [line.split("/")[0] for line in shown(first)] == [f"第 {i}" for i in range(1, 151)]
    epochs, updates, allowed = map(float, streamed(rest).split())
    assert epochs == 150 and updates <= allowed + 2  # 开头占位、末尾收尾


def test_after_an_error_the_finished_epochs_stay_and_the_bar_is_gone(stored):
    first, error = stored["failing"]
    assert shown(first) == shown(stored["slow"][0])[:1]
    assert error.output_type == "error" and "读不到" in error.evalue


def test_a_front_end_that_refuses_ends_nothing(stored):
    assert streamed(stored["broken"]) == "2\n"
