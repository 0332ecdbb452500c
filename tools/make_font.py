"""制作随书的中文字体 `src/companion/book/_fonts/CompanionSansSC.otf`。

原料：Debian 软件包 `fonts-noto-cjk` 里的 Noto Sans CJK SC（OFL 许可）。同样的原料做出同样的字节。

收哪些字：GB2312 一级汉字、符号、全角字符、拼音、希腊字母，下面 `EXTRA`、`SPARE`、`NAMES` 里的，和
GB2312 二级汉字里最常用的，凑满 `TOTAL` 个，文件将近 1 MB。常用不常用看 jieba 的词典：一个字在全部
的词、地名、人名里各占多大的比例，三个比例加起来。单字成词的不算，那里面有别的编码留下的乱码。
书里用了字体没有的字（测试会说），就添进 `SPARE`，再做一次。

怎么缩小：去掉微调、排版表和多余的字符映射；一个字由 1000 格改成 400 格，每个点至多挪动字宽的
1/800；相同的笔画合并。最后换一个族名，免得与系统里的同名字体打架。

    apt-get install fonts-noto-cjk
    python tools/make_font.py
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import jieba
from fontTools import subset
from fontTools.pens.recordingPen import RecordingPen
from fontTools.pens.t2CharStringPen import T2CharStringPen
from fontTools.pens.transformPen import TransformPen
from fontTools.ttLib import TTCollection, TTFont
from fontTools.ttLib.scaleUpem import scale_upem

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc")
# 换一个版本的原料，做出的字节就不同
SOURCE_SHA256 = "b76b0433203017ca80401b2ee0dd69350349871c4b19d504c34dbdd80541690a"
TARGET = ROOT / "src/companion/book/_fonts/CompanionSansSC.otf"
FACE = "Noto Sans CJK SC"
FAMILY = "Companion Sans SC"
MAX_BYTES = 1_000_000
UNITS = 400  # 一个字的宽和高是多少格
BOOK = ("chapters/*.ipynb", "intro.md", "glossary.md")
SYMBOL_ROWS = (1, 2, 3, 6, 8, 9)  # GB2312：标点、序号、全角字符、希腊字母、拼音和注音、制表符
HAN_ROWS = range(16, 56)  # GB2312 一级汉字，3755 个
RARE_ROWS = range(56, 88)  # GB2312 二级汉字，3008 个，按部首排，不按常用不常用
TOTAL = 6090  # 一共收多少个字符：再多，文件就超过 1 MB 了
EXTRA = "‹›＿−–—…‘’“”·×÷±≤≥≠≈∞∑∏∂∇√→←↑↓⇒∈∉⊂∪∩°′″①②③④⑤⑥⑦⑧⑨⑩⑪⑫⑬⑭⑮⑯⑰⑱⑲⑳✓✗◌■□▲△●○★☆½²³₀₁₂"
# 二级字里写技术书常用的，先收着，免得书里多一个字就要重做字体。
SPARE = (
    "浏渲熵耦阈阱骰鹜馈赝悖峭谱瓶颈嵌坍骤噪锚刹赘烬诠囿绎妥咖啡咪喵啰嗦噢嘿嗯哦哪仨俩俭偕僵冗凑刨"
    "剔卉吭呃囤坎坞垛埂堰壑夯妞孪寥峦嵘巅帧帷庑弋彷徨忐忑怼恍惚悻惬愣懵戳扼抠拎拗拽捋掰揉揣摞撇撩"
    "擎攒斡旮旯昵晌晦曝朦胧枢柠檬栅桩梳棱棵楔榫槛樊橙檐殆沁沌泵洼涵涮淬渍湃湍溅滤滥滞漩潢澜濒瀑炙"
    "烙焊煲熠燎狩猝琐瑕璃甄痕癖皱眨眯瞄瞥瞻砌硌碾磋祟禀稚窍窜窥竣笃筛箍箩篡簇籁糅紊绊绰缀缪罕翱耷"
    "聆肘胚胯脐腕膊膝臼舆舔芯茬荟莞菱蒸蔓薯藕蘑虏蛛蜂蜻蜓蝌蚪蝴蝶螺衔衍裆裸褶觅觊诀诌诙谏谙豁贬趋"
    "趟跋跨踏踪蹦辄辙迭迥逗逮遐遴邃酌酝酿醒铆铐铲锯镜镶闩阀阐隅隧雏霎靶鞍鞘韧颅颊颗飓饷馒骋骷鬓魇攥"
)
# 词典里少见或没有的：如今起名用的字，几处地名，口语。
NAMES = (
    "喆玥珺淼旻赟璟珉飚鲲堃瑗祎玎翀垚旸旖昇娉旎怿樑嫒劼舸彧崧贇芃瑄犇赓珣燚弢妲镝昉颀焜鋆璠烜玟娆苒琚"
    "頔琍玮珩珑珂琰琨琬琮瑾瑜璇璐璞晗晔晟晞昱昕暄煜煊炜烨焱筱筠菡萱蓓薇茜茉婧婕婵嫣姝娅媛倩铭铠锴鑫钰"
    "骁骐骞轩宸寰峥嵘屹岚皓睿祺禛楠桐梓榕槿沐泓泽浠涵淇滢潇澍濛灏翊翎翾芮芷苡荻莜莘菁葳蔚蕊霖霏霁韬韵"
    "埇琊浈浉猇茌瀍硚垟垭漷鲅峄邡珙隰溆瞭镕妳喔嗨呗诶哒囧撸咩嗑唷啵呦噗嗲嘤铯钴镉氪氙隼胪咻缇粿蠔槑怼"
    "唔咦哔踹丶羯祢遛撷侬睇糗橹喱烊噱獾弑钯鳕掴粜啾殇鲔虻僭衩螨嘞舐莴摁焖醯锆腚愫膻箐蚝腭芈荨孬珏囡妤姣蓁芊锶啟氤氲薏"
)


def gb2312_rows(rows: Iterable[int]) -> set[str]:
    """返回 GB2312 这几个区里的全部字符。"""
    codes = (bytes([0xA0 + row, 0xA0 + col]) for row in rows for col in range(1, 95))
    return set("".join(code.decode("gb2312", errors="ignore") for code in codes))


def book_characters(root: Path = ROOT) -> set[str]:
    """返回书稿里出现过的全部字符。"""
    paths = (path for pattern in BOOK for path in root.glob(pattern))
    return set("".join(path.read_text(encoding="utf-8") for path in paths))


def ranked() -> list[str]:
    """返回 jieba 词典里的字，常用的在前；一样常用的按编码排。"""
    totals = {kind: Counter[str]() for kind in ("", "ns", "nr")}  # 全部、地名、人名
    text = Path(jieba.__file__).with_name("dict.txt").read_text(encoding="utf-8")
    for word, count, tag in map(str.split, text.splitlines()):
        for kind, total in totals.items():
            if len(word) > 1 and tag.startswith(kind):
                total.update(dict.fromkeys(word, int(count)))
    sums = {kind: total.total() for kind, total in totals.items()}
    share = {c: sum(totals[kind][c] / sums[kind] for kind in totals) for c in totals[""]}
    return sorted(share, key=lambda char: (-share[char], char))


def wanted_characters() -> set[str]:
    """返回字体要收的全部字符；只看这个文件和词典，不看书稿，书稿改了字体不必跟着变。"""
    latin = {chr(code) for code in (*range(0x20, 0x7F), *range(0xA0, 0x180))}
    always = gb2312_rows(SYMBOL_ROWS) | gb2312_rows(HAN_ROWS) | latin
    always |= set(EXTRA + SPARE + NAMES)
    rare = gb2312_rows(RARE_ROWS) - always
    return always | set([char for char in ranked() if char in rare][: TOTAL - len(always)])


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
        10: f"Modified version: subset of {FACE}, rescaled, renamed.",
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


def shrink(font: TTFont) -> None:
    """改成一个字 ``UNITS`` 格；轮廓上每个点的位置各自取整。"""
    scale, glyphs, outlines = UNITS / font["head"].unitsPerEm, font.getGlyphSet(), {}
    for name in font.getGlyphOrder():
        outlines[name] = RecordingPen()
        glyphs[name].draw(TransformPen(outlines[name], (scale, 0, 0, scale, 0, 0)))
    strings = font["CFF "].cff.topDictIndex[0].CharStrings
    for name in outlines:  # 轮廓不让它缩：那里取整的是一步一步的位移，越走越偏，还占一半的时间
        strings[name].program = ["endchar"]
    scale_upem(font, UNITS)
    for name, outline in outlines.items():
        private, width = strings[name].private, font["hmtx"][name][0]
        pen = T2CharStringPen(
            None if width == private.defaultWidthX else width - private.nominalWidthX, None
        )
        outline.replay(pen)
        strings[name].program = pen.getCharString().program


def make_font(source: Path, target: Path) -> int:
    """写出子集字体，返回文件的字节数。"""
    import cffsubr  # 只有这里要它；测试只看收了哪些字

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
    shrink(font)
    font["cmap"].tables = [table for table in font["cmap"].tables if table.platEncID == 1]
    rename(font)
    cffsubr.subroutinize(font, cff_version=1, keep_glyph_names=False)
    font.save(target)
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
