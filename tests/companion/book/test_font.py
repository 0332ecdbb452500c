"""随书字体：够小、够全、改了名、带着许可证，而且能从原料重做出来。"""

import io
import sys
from pathlib import Path

import matplotlib
import pytest
from fontTools.ttLib import TTFont

from companion.plot import FONT, use_chinese_font

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tools"))
import make_font  # noqa: E402


@pytest.fixture(scope="module")
def covered():
    return set(TTFont(FONT).getBestCmap())


def test_font_is_below_one_megabyte_and_carries_its_licence():
    assert FONT.stat().st_size <= 1_000_000
    licence = (FONT.parent / "OFL.txt").read_text(encoding="utf-8")
    assert "SIL OPEN FONT LICENSE Version 1.1" in licence and "Adobe" in licence


def test_font_bears_our_name_and_not_the_name_of_its_source():
    names = TTFont(FONT)["name"]
    assert names.getDebugName(1) == "Companion Sans SC"
    assert names.getDebugName(4) == "Companion Sans SC Regular"
    assert names.getDebugName(6) == "CompanionSansSC-Regular"
    assert "Adobe" in names.getDebugName(0)


def test_font_has_no_hinting_or_layout_tables():
    assert not {"GPOS", "GSUB", "fpgm", "prep", "cvt ", "vmtx"} & set(TTFont(FONT).keys())


def test_font_covers_common_han_characters_greek_and_symbols(covered):
    common = bytes(b for row in range(0xB0, 0xD8) for c in range(0xA1, 0xFF) for b in (row, c))
    han = common.decode("gb2312", errors="ignore")
    assert len(set(han)) == 3755
    missing = set(map(ord, han + "αβγΩ−×≤≥≠≈∞∑∂∇√→①⑩✓★☆")) - covered
    assert not {chr(code) for code in missing}


def test_font_has_every_han_character_of_the_book(covered):
    missing = {c for c in make_font.book_characters() if "一" <= c <= "鿿"} - set(map(chr, covered))
    assert not missing, "书里有字体没收的字：请运行 python tools/make_font.py"


def test_every_character_of_the_book_is_drawn_without_a_missing_glyph():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    text = "".join(sorted(c for c in make_font.book_characters() if c.isprintable()))
    assert len(text) > 300
    with matplotlib.rc_context():
        use_chinese_font()
        lines = [text[i : i + 60] for i in range(0, len(text), 60)]
        figure = pyplot.figure(figsize=(8, 0.3 * len(lines)))
        figure.text(0, 0, "\n".join(lines), parse_math=False)
        figure.savefig(io.BytesIO())
        pyplot.close(figure)


@pytest.mark.skipif(not make_font.SOURCE.exists(), reason="没有装 fonts-noto-cjk，做不了字体")
def test_font_made_again_from_its_source_is_small_renamed_and_complete(tmp_path):
    target = tmp_path / "again.otf"
    assert make_font.make_font(make_font.SOURCE, target) <= make_font.MAX_BYTES
    again = TTFont(target)
    assert again["name"].getDebugName(1) == make_font.FAMILY
    assert set(again.getBestCmap()) >= set(map(ord, make_font.gb2312_rows(make_font.HAN_ROWS)))


def test_missing_source_font_is_reported_with_the_package_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["make_font.py", "--source", str(tmp_path / "none.ttc")])
    assert make_font.main() == 1
    assert "apt-get install fonts-noto-cjk" in capsys.readouterr().out
