"""随书字体：够小、够全、改了名、带着许可证，而且能从原料重做出来。"""

import hashlib
import io
import sys
from pathlib import Path

import matplotlib
import pytest
from fontTools.pens.boundsPen import BoundsPen
from fontTools.ttLib import TTFont

from companion import plot
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


WORDS = {
    "places": "北京 上海 深圳 郑州 沈阳 泸州 亳州 濮阳 漯河 衢州 岷县 邛崃 婺源 黟县 睢阳 鄱阳",
    "provinces": "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼港澳台",
    "names": "婷 昊 鑫 璇 喆 玥 珺 淼 垚 赟 旻 瑗 祎 翀 昇 堃 芃 瑄 彧 琦 雯 妍 婧 睿",
    "animals and food": "鹦鹉 蚯蚓 螳螂 鳄鱼 麒麟 獾 馄饨 饺子 榴莲 柠檬 橄榄 薏米 酥饼 咖喱 芝士",
    "speech": "唔 哎哟 呗 诶 喔 嘟囔 尴尬 癫痫 痣 踹 踌躇 憧憬 邂逅 蹒跚 氤氲 囧",
    "symbols": "✓ ☆ ★ ← → ↑ ↓ ≤ ≥ ± × ÷ ° ‰ ① ② ⑩ ⑳ Ⅳ ℃ ㈠ ■ ○ ￥ …… ——",
    "full width": "，。、；：？！（）【】《》「」『』“”‘’～·％＋－＝＜＞＆＃＠／｜ＡＺａｚ０９",
    "pinyin": "āáǎà ēéěè īíǐì ōóǒò ūúǔù ǖǘǚǜ",
}


@pytest.mark.parametrize("kind", WORDS)
def test_font_covers_ordinary_words(kind, covered):
    assert not set(WORDS[kind]) - set(map(chr, covered))


def test_font_holds_the_characters_that_the_script_chooses_and_no_others(covered):
    wanted = set(map(ord, make_font.wanted_characters()))
    assert len(wanted) == make_font.TOTAL
    assert not [chr(code) for code in wanted ^ covered if "一" <= chr(code) <= "鿿"]


def test_outlines_keep_their_place_and_width_on_the_coarser_grid():
    font = TTFont(FONT)
    assert font["head"].unitsPerEm == make_font.UNITS
    glyphs, names = font.getGlyphSet(), font.getBestCmap()
    bounds = BoundsPen(glyphs)
    glyphs[names[ord("一")]].draw(bounds)  # 原来的字宽 1000，一横从 44 到 960
    assert glyphs[names[ord("一")]].width == make_font.UNITS
    assert bounds.bounds[0] * 2.5 == pytest.approx(44, abs=1.25)
    assert bounds.bounds[2] * 2.5 == pytest.approx(960, abs=1.25)


def test_font_has_every_han_character_of_the_book(covered):
    missing = {c for c in make_font.book_characters() if "一" <= c <= "鿿"} - set(map(chr, covered))
    assert not missing, "书里有字体没收的字：请添进 make_font.py 的 SPARE，再运行它"


def test_every_character_of_the_book_is_drawn_without_a_missing_glyph(capsys, monkeypatch):
    monkeypatch.setattr(plot, "INSTALLED", ())
    monkeypatch.setattr(plot, "_told", set())
    pyplot = pytest.importorskip("matplotlib.pyplot")
    text = "".join(sorted(c for c in make_font.book_characters() if c.isprintable()))
    assert len(text) > 300
    with matplotlib.rc_context():
        use_chinese_font()
        lines = [text[i : i + 60] for i in range(0, len(text), 60)]
        figure = pyplot.figure(figsize=(8, 0.3 * len(lines)))
        figure.text(0, 0, "\n".join(lines), parse_math=False)
        figure.savefig(io.BytesIO())
        assert capsys.readouterr().err == ""
        figure.text(0, 0, "龘")
        figure.savefig(io.BytesIO())
        assert "龘" in capsys.readouterr().err
        pyplot.close(figure)


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    """再做一次；缺原料或工具就跳过。"""
    if not make_font.SOURCE.exists():
        pytest.skip("没有装 fonts-noto-cjk，做不了字体")
    pytest.importorskip("cffsubr")
    target = tmp_path_factory.mktemp("font") / "again.otf"
    assert make_font.make_font(make_font.SOURCE, target) <= make_font.MAX_BYTES
    return target


def test_font_made_again_from_its_source_is_small_renamed_and_complete(again):
    font = TTFont(again)
    assert font["name"].getDebugName(1) == make_font.FAMILY
    assert set(font.getBestCmap()) >= set(map(ord, make_font.gb2312_rows(make_font.HAN_ROWS)))


def test_the_same_source_gives_the_shipped_font_byte_for_byte(again):
    if hashlib.sha256(make_font.SOURCE.read_bytes()).hexdigest() != make_font.SOURCE_SHA256:
        pytest.skip("这里的 Noto Sans CJK 是另一个版本")
    assert again.read_bytes() == FONT.read_bytes()


def test_missing_source_font_is_reported_with_the_package_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["make_font.py", "--source", str(tmp_path / "none.ttc")])
    assert make_font.main() == 1
    assert "apt-get install fonts-noto-cjk" in capsys.readouterr().out
