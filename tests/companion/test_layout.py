"""架构测试：改这张层号表，就是在改架构。"""

import ast
import re
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "companion"
LAYER = {
    "errors": 0,
    "device": 1,
    "repro": 2,
    "_common": 3,
    **dict.fromkeys(("book", "distributed", "measure", "metrics", "models", "plot"), 4),
    **dict.fromkeys(("checkpoint", "data", "optim"), 5),
    "run": 6,
    "train": 7,
    "__init__": 9,
    "__main__": 10,
}
WRITERS = {"_common", "checkpoint", "data", "run"}
WRITING_CALLS = {"write_text", "write_bytes", "save", "savez", "savez_compressed", "savefig"}
WRITING_CALLS |= {"mkdir", "unlink", "rename", "rmtree", "touch", "makedirs"}
NETWORK = {"urllib", "http", "socket", "requests", "ftplib"}
SOURCES = sorted(PACKAGE.rglob("*.py"))
HAN = re.compile("[一-鿿]")


def room(path):
    """文件属于哪一格：顶层模块是它自己，文件夹里的都算文件夹。"""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "包内不用相对导入：写 from companion.errors import …"
        return [node.module]
    return []


def names_imported(path):
    return [name for node in ast.walk(tree(path)) for name in imported(node)]


def parametrize(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda p: str(p.relative_to(PACKAGE)))


@parametrize(SOURCES)
def test_a_module_imports_only_lower_layers(path):
    here = room(path)
    assert here in LAYER, f"新模块 {here} 还没有登记层号"
    for name in names_imported(path):
        if name == "companion":
            assert here == "__main__", "从模块导入名字，不从包导入"
        elif name.startswith("companion."):
            there = name.split(".")[1]
            same_folder = there == here and path.parent != PACKAGE
            assert same_folder or LAYER[there] < LAYER[here], (
                f"{here}（第 {LAYER[here]} 层）不得导入 {there}（第 {LAYER[there]} 层）"
            )


@parametrize(SOURCES)
def test_a_folder_is_entered_only_through_its_front_door(path):
    for name in names_imported(path):
        inside = [part for part in name.split(".")[2:] if part.startswith("_")]
        assert not inside or name.split(".")[1] == room(path), f"从文件夹的门口导入，不要用 {name}"


def test_the_modules_of_a_folder_do_not_import_each_other_in_a_circle():
    imports = {}
    for path in SOURCES:
        here = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        imports[here] = {name for name in names_imported(path) if name.startswith("companion.")}
    for start in imports:
        seen, todo = set(), set(imports[start])
        while todo:
            name = todo.pop()
            assert name != start, f"{start} 绕一圈又导入了自己"
            seen.add(name)
            todo |= imports.get(name, set()) - seen


@parametrize(SOURCES)
def test_at_import_time_only_torch_numpy_and_the_standard_library_are_needed(path):
    allowed = {"torch", "numpy", "companion"} | sys.stdlib_module_names
    for statement in tree(path).body:
        for name in imported(statement):
            assert name.split(".")[0] in allowed, f"{name} 要在用到它的函数里导入"


@parametrize(SOURCES)
def test_only_plot_knows_matplotlib_and_only_data_knows_the_network(path):
    roots = {name.split(".")[0] for name in names_imported(path)}
    assert "matplotlib" not in roots or room(path) == "plot"
    assert not roots & NETWORK or room(path) == "data"


@parametrize(SOURCES)
def test_only_device_spells_out_the_names_of_accelerators(path):
    strings = [
        node.value
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    named = [s for s in strings if re.match(r"(cuda|mps|xpu)(:\d+)?$", s)]
    attributes = [n.attr for n in ast.walk(tree(path)) if isinstance(n, ast.Attribute)]
    named += [a for a in attributes if a in ("cuda", "mps", "xpu")]
    assert not named or room(path) == "device"


@parametrize(SOURCES)
def test_only_data_checkpoint_and_run_write_files(path):
    if room(path) in WRITERS:
        return
    for call in [node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]:
        if ast.unparse(call.func) == "journal.save":  # Run 的方法，写的是 run
            continue
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        assert name not in WRITING_CALLS, f"第 {call.lineno} 行写了文件"
        if name == "open":
            arguments = call.args + [keyword.value for keyword in call.keywords]
            modes = [a.value for a in arguments if isinstance(a, ast.Constant)]
            assert not [m for m in modes if re.fullmatch("[rwxabt+]*[wxa+][bt+]*", str(m))]


@parametrize(SOURCES)
def test_an_import_runs_nothing_but_definitions(path):
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.AugAssign)
    allowed += (ast.FunctionDef, ast.ClassDef)
    for i, node in enumerate(tree(path).body):
        docstring = i == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        guards = ("TYPE_CHECKING", "__name__ == '__main__'")
        guard = isinstance(node, ast.If) and ast.unparse(node.test) in guards
        assert docstring or guard or isinstance(node, allowed), f"第 {node.lineno} 行"


@parametrize(SOURCES)
def test_files_have_at_most_400_lines_and_functions_at_most_40_without_docstring(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef):
            first = node.body[0]
            has_docstring = ast.get_docstring(node) is not None
            docstring = first.end_lineno - first.lineno + 1 if has_docstring else 0
            lines = node.end_lineno - node.lineno + 1 - docstring
            assert lines <= 40, f"{node.name} 有 {lines} 行"


@parametrize(SOURCES)
def test_a_file_opens_with_a_chinese_docstring(path):
    assert HAN.search(ast.get_docstring(tree(path)) or "")


@parametrize(SOURCES)
def test_only_front_doors_and_top_modules_list_their_names_and_the_lists_are_sorted(path):
    assigned = [node for node in tree(path).body if isinstance(node, ast.Assign)]
    lists = [n.value for n in assigned if ast.unparse(n.targets[0]) == "__all__"]
    public = path.name == "__init__.py" or (path.parent == PACKAGE and path.stem != "_common")
    assert bool(lists) == (public and path.parent.name != "exercises")
    for names in map(ast.literal_eval, lists):
        assert names == sorted(names, key=lambda name: (not name.isupper(), name))  # 同 RUF022


def test_every_module_inside_a_folder_is_private_except_checkers_which_are_found_by_title():
    inside = [path for path in SOURCES if path.parent != PACKAGE and path.name != "__init__.py"]
    assert [p for p in inside if not p.name.startswith("_") and p.parent.name != "exercises"] == []
