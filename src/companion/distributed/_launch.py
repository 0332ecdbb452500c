"""从笔记本或脚本里起若干个进程，一起跑一个 .py 文件：失败就报错，超时全停下，不留孤儿。"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from companion._common import emit
from companion.errors import ArgumentError, LaunchError

_GRACE_S = 10  # 叫停之后，留给各进程存档、离开的秒数
_MARK = "COMPANION_LAUNCH"  # 这个环境变量传给全部后代，靠它找出没停下的
_TAG = re.compile(r"\[rank (\d+)\] ?(?:\[rank\d+\]: ?)?(.*)")  # torch 在报错的行首也标了一次
_FAILURE = re.compile(r"rank\s*: (\d+) .*?exitcode\s*: (-?\d+)", re.DOTALL)


def launch(
    script: str | Path,
    nproc: int = 2,
    *,
    timeout: float = 120,
    args: Sequence[object] = (),
    max_restarts: int = 0,
    env: Mapping[str, str] | None = None,
) -> str:
    """各进程印的全部内容，每行前面标着 ``[rank 编号]``；边跑边印，跑完再整个返回。

    等于在终端里执行 ``torchrun --standalone --nproc-per-node nproc script args…``，只是用的一定是
    当前这个 Python，而且失败了会报错（``!torchrun`` 失败，笔记本照样往下走）。按中断键，或到时间
    还没跑完，就叫停全部进程；10 秒后还在的直接杀死。

    Args:
        script: 一个 ``.py`` 文件；它自己调用 ``companion.distributed.init``。
        nproc: 进程数。
        timeout: 最多跑几秒。
        args: 传给脚本的命令行参数。
        max_restarts: 有进程失败时，最多全部重来几次；脚本要自己从存档接着练。
        env: 另加的环境变量。没有指定 ``OMP_NUM_THREADS`` 时设为 1，免得进程之间抢核。

    Raises:
        ArgumentError: 没有这个脚本，数目不对，或者 ``args``、``env`` 传不给进程。
        LaunchError: 有进程失败，消息里是它的退出码和最后几行；或者超时。

    出处：``torch.distributed.run``。Windows 上叫停等于直接结束 torchrun，进程来不及存档。
    """
    path = _check(script, nproc, timeout, args, max_restarts)
    mark = uuid.uuid4().hex
    said: list[tuple[int, str]] = []  # 各进程说的：编号和一行字
    agent: list[str] = []  # torchrun 自己的日志
    expired = threading.Event()
    with TemporaryDirectory(prefix="companion-", ignore_cleanup_errors=True) as logs:
        options = ["--standalone", f"--nproc-per-node={nproc}", f"--max-restarts={max_restarts}"]
        options += [f"--shutdown-timeout={_GRACE_S}", "--tee=3", f"--log-dir={logs}"]
        command = [sys.executable, "-m", "torch.distributed.run", *options, "--", str(path)]
        with _start([*command, *map(str, args)], _environment(mark, env)) as process:
            timer = threading.Timer(timeout, _expire, (process, mark, expired))
            timer.start()
            try:
                _echo(process, said, agent)
            finally:
                timer.cancel()
                _stop(process, mark)
                _echo(process, said, agent)  # 被叫停的，把最后的话说完
    code = process.returncode
    if expired.is_set():
        raise LaunchError(_timeout_message(path, nproc, timeout, said))
    if code:
        raise LaunchError(_failure_message(path, nproc, code, said, agent))
    return "".join(f"{_tagged(*line)}\n" for line in said)


def _check(
    script: str | Path, nproc: int, timeout: float, args: Sequence[object], max_restarts: int
) -> Path:
    """参数都能用，就返回脚本的绝对路径：叫 ``-m.py`` 的文件，不该被当成 torchrun 的选项。"""
    if not isinstance(script, str | os.PathLike):
        raise ArgumentError(f"script 应是一个 .py 文件的路径，实际是 {script!r}。")
    path = Path(script).absolute()
    if path.suffix != ".py" or not _is_file(path):
        raise ArgumentError(f"script 应是一个 .py 文件，{path} 不是，或者不存在；请核对路径。")
    for name, number, least in (("nproc", nproc, 1), ("max_restarts", max_restarts, 0)):
        if type(number) is not int or number < least:
            raise ArgumentError(f"{name} 应是至少为 {least} 的整数，实际是 {number!r}。")
    if type(timeout) not in (int, float) or not 0 < timeout <= threading.TIMEOUT_MAX:
        raise ArgumentError(f"timeout 应是正的秒数，实际是 {timeout!r}；不想限时就写大一点。")
    if isinstance(args, str | bytes) or not isinstance(args, Sequence):
        raise ArgumentError(f"args 应是一列参数，实际是 {args!r}；只有一个也要写成列表。")
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # 名字太长，或者没有权限看
        return False


def _environment(mark: str, extra: Mapping[str, str] | None) -> dict[str, str]:
    env = {"OMP_NUM_THREADS": "1"} | dict(os.environ) | dict(extra or {})
    source = Path(__file__).parents[2]
    if source.name not in ("site-packages", "dist-packages"):  # 没有安装，从源码目录导入的
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(source), env.get("PYTHONPATH"))))
    env |= {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
    env |= {"TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE": "[rank ${rank}] "}
    return env | {_MARK: f"{env.get(_MARK, '')} {mark}"}  # 里外两层 launch，外层也认得里层的后代


def _start(command: list[str], env: dict[str, str]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=env,
            start_new_session=True,  # 终端的 Ctrl-C 只到我们这里，由 _stop 去叫停
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # 只有 Windows 有
        )
    except (OSError, TypeError, ValueError) as error:  # 空字符、孤立的代理字符、太长、不是文字
        raise ArgumentError(
            f"args 应能写成命令行，env 的名字和值应是文字，实际传不给进程：{error}。请改掉。"
        ) from error


def _echo(process: subprocess.Popen[str], said: list[tuple[int, str]], agent: list[str]) -> None:
    """各进程说的话，边收边印，直到都说完；没有标编号的是 torchrun 的日志，只收着。"""
    for line in process.stdout or ():
        if tagged := _TAG.match(line):
            said.append((int(tagged[1]), tagged[2].rstrip()))
            emit(_tagged(*said[-1]) + "\n", flush=True)
        else:
            agent.append(line.rstrip())


def _tagged(rank: int, line: str) -> str:
    return f"[rank {rank}] {line}"


def _expire(process: subprocess.Popen[str], mark: str, expired: threading.Event) -> None:
    expired.set()
    _stop(process, mark)


def _stop(process: subprocess.Popen[str], mark: str) -> None:
    """先好好地叫停，等一会儿；然后不管是什么情形，都不留下一个后代。"""
    try:
        if process.poll() is None:
            process.terminate()  # torchrun 转告各进程，_GRACE_S 秒后杀死不肯停的
            process.wait(_GRACE_S + 5)
    except subprocess.TimeoutExpired:
        process.kill()
    finally:
        _kill_marked(mark)


def _kill_marked(mark: str) -> None:
    """杀死环境变量里带着 ``mark`` 的进程，等它们消失。只有 Linux 查得到；别处靠 torchrun 收拾。"""
    deadline = time.monotonic() + _GRACE_S
    while (alive := _marked(mark)) and time.monotonic() < deadline:
        for pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _marked(mark: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # 别人的进程，或者刚刚结束
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def _failure_message(
    path: Path, nproc: int, code: int, said: list[tuple[int, str]], agent: list[str]
) -> str:
    """先怪被信号杀死的（SIGTERM 不算，那是 torchrun 叫停的），再怪 torchrun 认定的祸首。"""
    failures = [(int(rank), int(code)) for rank, code in _FAILURE.findall("\n".join(agent))]
    expected = f"{path.name} 的 {nproc} 个进程应都正常结束，实际"
    if not failures:
        return "\n".join([f"{expected} torchrun 退出码 {code}。它的日志末尾：", *agent[-5:]])
    killed = [failure for failure in failures if failure[1] < 0 and failure[1] != -signal.SIGTERM]
    rank, code = killed[0] if killed else failures[-1]
    by = f"（被 {_signal_name(-code)} 杀死）" if code < 0 else ""
    last = [line for who, line in said if who == rank][-20:]
    return "\n".join(
        [f"{expected} {rank} 号失败，退出码 {code}{by}。它最后印的：", *last, "改好脚本再启动。"]
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # 实时信号大多没有名字
        return f"{number} 号信号"


def _timeout_message(path: Path, nproc: int, timeout: float, said: list[tuple[int, str]]) -> str:
    latest = dict(said)
    last = [_tagged(rank, latest.get(rank, "（什么也没有印）")) for rank in range(nproc)]
    return "\n".join(
        [
            f"{path.name} 应在 {timeout:g} 秒内跑完，实际没有，已全部停下。各进程最后印的：",
            *last,
            "若是有的进程在等别人，检查各进程是否按同样的次序调用了同样多次通信；"
            "若只是慢，调大 timeout。",
        ]
    )
