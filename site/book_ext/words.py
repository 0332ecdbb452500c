"""中文切词：索引里的每个汉字词写成一个拉丁字母的记号，浏览器用同样的记号去查。

pagefind 自己切词的词典不认得「张量」「步幅」，而且浏览器那一侧切得还不一样，所以不让它切。
"""

from __future__ import annotations

import logging
import re
from functools import cache
from pathlib import Path

import jieba

WORDS = Path(__file__).resolve().parents[1] / "jieba_words.txt"
HAN_RUN = re.compile(r"[\u3400-\u9fff]+")


@cache
def cutter() -> jieba.Tokenizer:
    """认得本书术语的切词器，整个构建共用一个。"""
    jieba.setLogLevel(logging.WARNING)
    tokenizer = jieba.Tokenizer()
    tokenizer.load_userdict(WORDS.read_text(encoding="utf-8").splitlines())
    return tokenizer


def is_han(text: str) -> bool:
    """``text`` 是否全是汉字。"""
    return HAN_RUN.fullmatch(text) is not None


def token(word: str) -> str:
    """汉字词 ``word`` 的记号：每个字的码位是四位十六进制数，数字换成 a 到 p 的字母。"""
    digits = "".join(f"{ord(char):04x}" for char in word)
    return "".join(chr(ord("a") + int(digit, 16)) for digit in digits)


def encoded(text: str) -> str:
    """汉字词都换成记号的 ``text``；非汉字原样。"""
    return HAN_RUN.sub(lambda run: f" {' '.join(map(token, cutter().cut(run[0])))} ", text)


def inner_tokens(text: str) -> str:
    """长词里还含着的短词（如「自动求导」里的「求导」）的记号，空格隔开，不重复。"""
    words = [word for run in HAN_RUN.findall(text) for word in cutter().cut_for_search(run)]
    whole = set(encoded(text).split())
    tokens = dict.fromkeys(map(token, words))
    return " ".join(name for name in tokens if name not in whole)
