"""制作随书的中文字体 `src/companion/book/_fonts/CompanionSansSC.otf`。

原料：Debian 软件包 `fonts-noto-cjk` 里的 Noto Sans CJK SC（OFL 许可）。
做法：留下 GB2312 一级汉字、符号、希腊字母，再加上书里出现过的所有字；去掉微调和排版表；
换一个族名，免得与系统里的同名字体打架。同样的原料做出同样的字节。

    apt-get install fonts-noto-cjk
    python tools/make_font.py
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTCollection, TTFont

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc")
TARGET = ROOT / "src/companion/book/_fonts/CompanionSansSC.otf"
FACE = "Noto Sans CJK SC"
FAMILY = "Companion Sans SC"
MAX_BYTES = 1_000_000
BOOK = ("chapters/*.ipynb", "intro.md", "glossary.md")
SYMBOL_ROWS = (1, 2, 6, 9)  # GB2312：标点、序号、希腊字母、制表符
HAN_ROWS = range(16, 56)  # GB2312 一级汉字，3755 个
EXTRA = "＿−–—…‘’“”·×÷±≤≥≠≈∞∑∏∂∇√→←↑↓⇒∈∉⊂∪∩°′″①②③④⑤⑥⑦⑧⑨⑩✓✗◌■□▲△●○★☆½²³₀₁₂"
# 二级字里写技术书常用的，先收着，免得书里多一个字就要重做字体。
SPARE = (
    "浏渲熵耦阈阱骰鹜馈赝悖峭谱瓶颈嵌坍骤噪锚刹赘烬诠囿绎妥咖啡咪喵啰嗦噢嘿嗯哦哪仨俩俭偕僵冗凑刨"
    "剔卉吭呃囤坎坞垛埂堰壑夯妞孪寥峦嵘巅帧帷庑弋彷徨忐忑怼恍惚悻惬愣懵戳扼抠拎拗拽捋掰揉揣摞撇撩"
    "擎攒斡旮旯昵晌晦曝朦胧枢柠檬栅桩梳棱棵楔榫槛樊橙檐殆沁沌泵洼涵涮淬渍湃湍溅滤滥滞漩潢澜濒瀑炙"
    "烙焊煲熠燎狩猝琐瑕璃甄痕癖皱眨眯瞄瞥瞻砌硌碾磋祟禀稚窍窜窥竣笃筛箍箩篡簇籁糅紊绊绰缀缪罕翱耷"
    "聆肘胚胯脐腕膊膝臼舆舔芯茬荟莞菱蒸蔓薯藕蘑虏蛛蜂蜻蜓蝌蚪蝴蝶螺衔衍裆裸褶觅觊诀诌诙谏谙豁贬趋"
    "趟跋跨踏踪蹦辄辙迭迥逗逮遐遴邃酌酝酿醒铆铐铲锯镜镶闩阀阐隅隧雏霎靶鞍鞘韧颅颊颗飓饷馒骋骷鬓魇"
)


def gb2312_rows(rows: Iterable[int]) -> set[str]:
    """返回 GB2312 这几个区里的全部字符。"""
    codes = (bytes([0xA0 + row, 0xA0 + col]) for row in rows for col in range(1, 95))
    return set("".join(code.decode("gb2312", errors="ignore") for code in codes))


def book_characters(root: Path = ROOT) -> set[str]:
    """返回书稿里出现过的全部字符。"""
    paths = (path for pattern in BOOK for path in root.glob(pattern))
    return set("".join(path.read_text(encoding="utf-8") for path in paths))


def wanted_characters() -> set[str]:
    """返回字体要收的全部字符：一级字、符号、拉丁字母，加上书里的字。"""
    latin = {chr(code) for code in (*range(0x20, 0x7F), *range(0xA0, 0x180))}
    common = gb2312_rows(SYMBOL_ROWS) | gb2312_rows(HAN_ROWS) | latin
    return common | set(EXTRA) | set(SPARE) | book_characters()


def face_number(source: Path) -> int:
    """返回简体字形在字体合集中的编号；合集里没有时报错。"""
    with TTCollection(source, lazy=True) as collection:
        return [font["name"].getDebugName(1) for font in collection].index(FACE)


def rename(font: TTFont) -> None:
    """把族名换成我们的名字，并写明它改自何处。"""
    postscript = FAMILY.replace(" ", "") + "-Regular"
    strings = {
        0: font["name"].getDebugName(0),
        1: FAMILY,
        2: "Regular",
        3: f"{postscript};subset of {FACE}",
        4: f"{FAMILY} Regular",
        5: font["name"].getDebugName(5),
        6: postscript,
        10: f"Modified version: subset of {FACE}, renamed.",
        13: font["name"].getDebugName(13),
        14: font["name"].getDebugName(14),
    }
    font["name"].names = []
    for name_id, text in strings.items():
        font["name"].setName(text, name_id, 3, 1, 0x409)
    cff = font["CFF "].cff
    cff.fontNames[0] = postscript
    cff.topDictIndex[0].FullName = f"{FAMILY} Regular"
    cff.topDictIndex[0].FamilyName = FAMILY


def make_font(source: Path, target: Path) -> int:
    """写出子集字体，返回文件的字节数。"""
    options = subset.Options(
        font_number=face_number(source),
        hinting=False,
        layout_features=[],
        name_IDs=["*"],
        notdef_outline=True,
        recalc_timestamp=False,
    )
    options.drop_tables += ["BASE", "GPOS", "GSUB", "VORG", "vhea", "vmtx"]
    font = subset.load_font(source, options, dontLoadGlyphNames=True)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=map(ord, wanted_characters()))
    subsetter.subset(font)
    rename(font)
    subset.save_font(font, target, options)
    font.close()
    return target.stat().st_size


def main() -> int:
    """命令行入口：成功返回 0，缺原料或超出大小返回 1。"""
    parser = argparse.ArgumentParser(description="制作随书的中文字体")
    parser.add_argument("--source", type=Path, default=SOURCE, help="Noto Sans CJK 字体合集")
    parser.add_argument("--target", type=Path, default=TARGET, help="写到哪里")
    args = parser.parse_args()
    if not args.source.exists():
        print(f"找不到 {args.source}；先运行 apt-get install fonts-noto-cjk。")
        return 1
    size = make_font(args.source, args.target)
    print(f"{args.target}：{size / 1000:.0f} KB")
    if size > MAX_BYTES:
        print(f"超过 {MAX_BYTES / 1000:.0f} KB 的上限：请减少字符集。")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
