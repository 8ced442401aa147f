"""Charset labels -> text. Every label, known or not, and every byte string gives a text that can be stored as UTF-8.

Labels follow the WHATWG encoding standard where it differs from the registry, because that is what writers of mail
mean: iso-8859-1 is windows-1252, gb2312 is gb18030, ks_c_5601 is cp949. Labels come from strangers, so they are looked
up in one fixed table: Python's own lookup would import modules by that name and remember every miss for ever.
"""

from __future__ import annotations

import re
from encodings.aliases import aliases

_TEXT_CODEC = re.compile(
    r"ascii|big5.*|cp\d+|euc_.*|gb.*|hp_roman8|hz|iso2022_.*|iso8859_\d+|johab|koi8_.|kz1048|latin_1|mac_.*"
    r"|ptcp154|shift_jis.*|tis_620|utf_(?:7|8|16|16_be|16_le|32|32_be|32_le)"
)
_WHATWG = {
    "ascii": "cp1252",
    "latin_1": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "shift_jis": "cp932",
    "big5": "big5hkscs",
    "iso8859_9": "cp1254",
    "iso8859_11": "cp874",
    "tis_620": "cp874",
    "iso2022_jp": "iso2022_jp_ext",
    "utf_16": "utf_16_le",
}
_MORE = {
    "ansi": "cp1252",
    "ansi_x3_110_1983": "cp1252",
    "cp936": "gb18030",
    "csgb2312": "gb18030",
    "default": "cp1252",
    "gb_2312_80": "gb18030",
    "iso_8859_8_i": "iso8859_8",
    "iso_8859_8_e": "iso8859_8",
    "iso_8859_6_i": "iso8859_6",
    "koi8": "koi8_r",
    "koi8_ru": "koi8_u",
    "ks_c_5601": "cp949",
    "ks_c_5601_1987": "cp949",
    "ksc5601": "cp949",
    "macintosh": "mac_roman",
    "unicode_1_1_utf_7": "utf_7",
    "unicode_1_1_utf_8": "utf_8",
    "unicode": "utf_16_le",
    "utf8mb4": "utf_8",
    "x_euc_jp": "euc_jp",
    "x_gbk": "gb18030",
    "x_mac_cyrillic": "mac_cyrillic",
    "x_mac_roman": "mac_roman",
    "x_sjis": "cp932",
    "x_x_big5": "big5hkscs",
}
_NOT_WORD = re.compile(r"[^a-z0-9]+")
_NULLS = {0: None}


def _table() -> dict[str, str]:
    known = {name: name for name in aliases.values()} | aliases
    table = {alias: _WHATWG.get(name, name) for alias, name in known.items() if _TEXT_CODEC.fullmatch(name)}
    table |= {f"windows_{page}": f"cp{page}" for page in (*range(1250, 1259), 874, 932, 949)}
    table |= {f"x_cp{page}": f"cp{page}" for page in range(1250, 1259)}
    return table | _MORE | {"utf_7": "utf_7", "big5_hkscs": "big5hkscs", "iso2022_jp": "iso2022_jp_ext"}


_CODECS = _table()
_PLAIN = frozenset(("", "utf_8", "cp1252"))


def codec_of(label: str) -> str:
    """The Python codec of a charset label, "" if there is none."""
    return _CODECS.get(_NOT_WORD.sub("_", label[:64].lower()).strip("_"), "")


def decode_text(raw: bytes, label: str = "") -> str:
    """Decode the bytes of a text.

    label    as the mail names it, in any case and quoting; unknown or missing means UTF-8, else windows-1252
    returns  text without NUL and without lone surrogates; what the charset does not know is U+FFFD
    """
    if raw.isascii() and b"\x1b" not in raw and b"\0" not in raw and (not label or codec_of(label) in _PLAIN):
        return raw.decode("ascii")
    text = _decoded(raw, label)
    return text.translate(_NULLS) if "\0" in text else text


def _decoded(raw: bytes, label: str) -> str:
    codec = codec_of(label)
    if codec == "utf_16_le" and raw[:2] == b"\xfe\xff":
        codec = "utf_16_be"
    if codec in ("", "cp1252", "utf_8"):
        return _western(raw, guess=not label or codec == "" or "ascii" in label.lower(), utf8=codec == "utf_8")
    try:
        text = raw.decode(codec, "replace")
    except (LookupError, ValueError):  # an interpreter built without that codec
        return _western(raw, guess=True)
    if codec == "utf_7":  # the one codec that lets lone surrogates through
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.removeprefix("\ufeff")


def _western(raw: bytes, *, guess: bool, utf8: bool = False) -> str:
    if utf8 or guess:
        try:
            return raw.decode().removeprefix("\ufeff")
        except UnicodeDecodeError:
            if utf8:
                return raw.decode(errors="replace").removeprefix("\ufeff")
    try:
        return raw.decode("cp1252")
    except UnicodeDecodeError:  # five bytes have no meaning there
        return raw.decode("latin-1")
