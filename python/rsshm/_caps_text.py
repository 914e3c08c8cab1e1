# SPDX-License-Identifier: MIT OR Apache-2.0
"""The grammar of caps as text, as docs/PROTOCOL.md describes it. GStreamer takes the same texts for fixed caps.

The functions for values return None if the text is not of the type. They raise _Wrong if GStreamer would take it for
another value than the text says.
"""

from __future__ import annotations

import re
import sys
from typing import Callable, Dict, List, Match, NamedTuple, Optional, Tuple

MAX_NAME_SIZE = 128
_MAX_DEPTH = 8
_BITS_64 = (1 << 64) - 1
_MAX_INT = (1 << 31) - 1

_NAME = re.compile(r"[A-Za-z0-9/\-_.:+]*")
_WORD = re.compile(r"[A-Za-z0-9/\-_.:+*]*")  # newer versions of GStreamer accept a star in strings without quotes
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.S)
_SPACES = re.compile(r"[ \t\n\f\r]*")
_FIELD_SPACES = re.compile(r"(?:\\?[ \t\n\f\r])*")  # between fields, spaces may have a backslash before them
_FEATURE = re.compile(r"[A-Za-z]*:[A-Za-z][A-Za-z0-9]*")
_FLAG_NAMES = re.compile(r"([+/][A-Za-z0-9_-]+)+")
_DECIMAL = re.compile(r"[-+]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?|inf(inity)?|nan)", re.I)
_HEXADECIMAL = re.compile(r"[-+]?0x([0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)(p[-+]?[0-9]+)?", re.I)
_ESCAPE = re.compile(rb"\\(?:([0-3][0-7][0-7])|([0-3])|(.))", re.S)
_BLANKS = " \t\n\v\f\r"


class Mistake(ValueError):
    """A place in a text at which GStreamer would not find fixed caps."""

    def __init__(self, position: int, expected: str) -> None:
        super().__init__(f"at character {position} of the text, {expected} is expected")
        self.position = position
        self.expected = expected

    def describe(self, text: str) -> str:
        """The mistake as a sentence. The position counts bytes, as in the other implementations."""
        at = len(text[: self.position].encode(errors="replace"))
        found = repr(text[self.position : self.position + 24]) if self.position < len(text) else "the end of the text"
        return f"at byte {at} there is {found}, but {self.expected} is expected"


class _Wrong(Exception):
    """What is expected in place of a value."""


class Structure(NamedTuple):
    """Fixed caps."""

    name: str
    features: Tuple[str, ...]
    fields: Dict[str, str]
    """The values as text, without type and quotes. Arrays and structures are in the canonical form."""
    canonical: str
    """The caps in the form that all versions of GStreamer read alike."""


def parse(text: str) -> Structure:
    """Parses caps. Raises Mistake if they are not fixed."""
    return _Parser(text).whole(True)


class _Integer(NamedTuple):
    """An integer at the start of a text, as C's strtoull reads it."""

    negative: bool
    magnitude: int
    rest: str
    """The text after the integer, or the text itself if it does not begin with an integer."""

    @property
    def wrapped(self) -> int:
        return (-self.magnitude if self.negative else self.magnitude) & _BITS_64


def _integer(text: str, base: int) -> _Integer:
    digits = text.lstrip(_BLANKS)
    negative = digits.startswith("-")
    digits = digits[digits[:1] in ("-", "+") and 1 or 0 :]
    if base != 10 and re.match(r"0[xX][0-9a-fA-F]", digits):
        base, digits = 16, digits[2:]
    elif base == 0:
        base = 8 if digits.startswith("0") else 10
    found = re.match({8: "[0-7]+", 10: "[0-9]+", 16: "[0-9a-fA-F]+"}[base], digits)
    if found is None:
        return _Integer(negative, 0, text)
    # Python limits the length of decimal numbers. Longer ones exceed 64 bits in any case.
    number = found.group().lstrip("0") or "0"
    magnitude = int(number, base) if len(number) <= 64 else _BITS_64 + 1
    return _Integer(negative, magnitude, digits[found.end() :])


def _named(text: str, least: int, most: int) -> Optional[int]:
    order = {"little_endian": 1234, "big_endian": 4321}
    order["byte_order"] = order[f"{sys.byteorder}_endian"]
    return {**order, "min": least, "max": most}.get(text.lower())


def _signed(text: str, bits: int) -> Optional[str]:
    number = _integer(text, 0)
    if number.magnitude > _BITS_64:
        return None
    half = 1 << (bits - 1)
    if number.rest:
        named = _named(text, -half, half - 1)
        return None if named is None else str(named)
    value = number.wrapped
    value -= (value >> 63) << 64
    # GStreamer takes a positive number for a negative one if only the sign bit does not fit.
    return str((value + half) % (2 * half) - half) if -half <= value < 2 * half else None


def _unsigned(text: str, bits: int) -> Optional[str]:
    most = (1 << bits) - 1
    number = _integer(text, 0)
    if number.magnitude > _BITS_64:
        return None
    if number.rest:
        named = _named(text, 0, most)
        return None if named is None or named > most else str(named)
    if number.magnitude > most:
        raise _Wrong("an integer that fits its type")
    return str(number.wrapped & most)


def _double(text: str) -> Optional[str]:
    number = text.lstrip(_BLANKS)
    if _DECIMAL.fullmatch(number):
        return number
    if text.lower() in ("min", "max"):
        return text.lower()
    return number.lower() if _HEXADECIMAL.fullmatch(number) else None


def _float(text: str) -> Optional[str]:
    if _DECIMAL.fullmatch(text):
        return None if abs(float(text)) > 3.4028234663852886e38 else text
    if _HEXADECIMAL.fullmatch(text):
        raise _Wrong("a decimal number")
    return _double(text)


def _boolean(text: str) -> Optional[str]:
    text = text.lower()
    return "true" if text in ("true", "yes", "t", "1") else "false" if text in ("false", "no", "f", "0") else None


def _fraction(text: str) -> Optional[str]:
    def limited(number: _Integer) -> int:
        if number.magnitude > _MAX_INT:
            raise _Wrong("a fraction whose numbers have at most 31 bits")
        return -number.magnitude if number.negative else number.magnitude

    number = _integer(text, 10)
    if number.rest != text:
        if not number.rest:
            return f"{limited(number)}/1"
        if not number.rest.startswith("/"):
            return None
        below = _integer(number.rest[1:], 10)
        if not below.rest and below.magnitude:
            return f"{limited(number)}/{limited(below)}"
    words = {"1/max": f"1/{_MAX_INT}", "min": f"{-_MAX_INT}/1", "max": f"{_MAX_INT}/1"}
    return words.get(text.lower())


def _bitmask(text: str) -> Optional[str]:
    number = _integer(text, 16)
    if text[:2] in ("0b", "0B") or (number.rest and number.rest != text):
        raise _Wrong("a bit mask in hexadecimal digits")
    return None if number.rest or number.magnitude > _BITS_64 else f"0x{number.wrapped:016x}"


def _flag_set(text: str, generic: bool) -> Optional[str]:
    flags = _integer(text, 16)
    if flags.rest == text:
        return None
    at_mask = flags.rest[flags.rest.startswith(":") :]
    mask = _integer(at_mask, 16)
    rest = mask.rest
    if rest == at_mask or (rest and (rest[0] != ":" or (generic and not _FLAG_NAMES.fullmatch(rest[1:])))):
        return None
    digits = len(at_mask) - len(rest) - (2 if at_mask[:2] in ("0x", "0X") else 0)
    if max(flags.magnitude, mask.magnitude) > _BITS_64 or digits > 8 or flags.wrapped >> 32:
        raise _Wrong("flags and a mask of at most 8 digits")
    if mask.wrapped & 0xFFFFFFFF != 0xFFFFFFFF:
        raise _Wrong("flags with the mask ffffffff, which alone are fixed, or (string)")
    return f"{flags.wrapped:x}:ffffffff"


def _buffer(text: str) -> Optional[str]:
    return text if re.fullmatch("([0-9a-fA-F]{2})*", text) else None


def _unquote(quoted: str) -> str:
    def replace(found: Match[bytes]) -> bytes:
        if found.group(2):
            raise _Wrong("a string whose octal escapes have three digits")
        return bytes([int(found.group(1), 8)]) if found.group(1) else found.group(3)

    data = _ESCAPE.sub(replace, quoted[1:-1].encode())
    if b"\0" in data:
        raise _Wrong("a string without the byte 0")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _Wrong("a string of UTF-8 text") from None


def _quote_byte(byte: int) -> str:
    char = chr(byte)
    if _NAME.fullmatch(char):
        return char
    # GStreamer finds the end of a nested structure by counting brackets, even in quotes.
    return f"\\{char}" if " " <= char <= "~" and char not in "[]" else f"\\{byte:03o}"


def quote(text: str) -> str:
    """The text as a value of the type string."""
    if text and text != "NULL" and _NAME.fullmatch(text):
        return text
    return '"' + "".join(map(_quote_byte, text.encode())) + '"'


_SCALARS: Dict[str, Tuple[Callable[[str], Optional[str]], str]] = {
    **{
        name: (lambda text, bits=bits: _signed(text, bits), "an integer that fits its type")  # type: ignore[misc]
        for name, bits in (("int", 32), ("gint64", 64), ("glong", sys.maxsize.bit_length() + 1))
    },
    **{
        name: (lambda text, bits=bits: _unsigned(text, bits), "an integer that fits its type")  # type: ignore[misc]
        for name, bits in (("uint", 32), ("guint64", 64), ("gulong", sys.maxsize.bit_length() + 1), ("guchar", 8))
    },
    "float": (_float, "a number"),
    "double": (_double, "a number"),
    "boolean": (_boolean, "true or false"),
    "fraction": (_fraction, "a fraction, such as 30/1,"),
    "bitmask": (_bitmask, "a bit mask, such as 0x3,"),
    "GstFlagSet": (lambda text: _flag_set(text, True), "flags with the mask ffffffff, such as 0:ffffffff,"),
    "GstVideoMultiviewFlagsSet": (
        lambda text: _flag_set(text, False),
        "flags with the mask ffffffff, such as 0:ffffffff,",
    ),
    "buffer": (_buffer, "an even number of hexadecimal digits"),
    "GstValueArray": (lambda text: None, "an array in < >"),
    "GstValueList": (lambda text: None, "a list in { }"),
}
_GUESSES = ("int", "double", "fraction", "GstFlagSet", "boolean")
_NESTED = ("structure", "GstCaps")
_ALIASES = {
    **{name: name for name in (*_SCALARS, *_NESTED, "string")},
    **dict.fromkeys(("i", "gint"), "int"),
    **dict.fromkeys(("u", "guint"), "uint"),
    **dict.fromkeys(("f", "gfloat"), "float"),
    **dict.fromkeys(("d", "gdouble"), "double"),
    **dict.fromkeys(("bool", "b", "gboolean"), "boolean"),
    **dict.fromkeys(("str", "s", "gchararray"), "string"),
    "GstFraction": "fraction",
    "GstBitmask": "bitmask",
    "flagset": "GstFlagSet",
    "GstBuffer": "buffer",
    "GstStructure": "structure",
    "caps": "GstCaps",
    "array": "GstValueArray",
    "list": "GstValueList",
}


class _Parser:
    """Parses a text. ``origin`` is its position in the whole text, or, if it ``was_quoted``, that of its quotes."""

    def __init__(self, text: str, origin: int = 0, was_quoted: bool = False, depth: int = 0) -> None:
        self.text = text
        self.at = 0
        self.origin = origin
        self.was_quoted = was_quoted
        self.depth = depth

    def mistake(self, at: int, expected: str) -> Mistake:
        return Mistake(self.origin if self.was_quoted else self.origin + at, expected)

    def match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        if found is None:
            return ""
        self.at = found.end()
        return found.group()

    def skip(self, char: str) -> bool:
        is_next = self.text.startswith(char, self.at)
        self.at += is_next
        return is_next

    def expect(self, char: str, expected: str) -> None:
        if not self.skip(char):
            raise self.mistake(self.at, expected)

    def short(self, at: int, name: str) -> str:
        if len(name) > MAX_NAME_SIZE:
            raise self.mistake(at, "a name of at most 128 bytes")
        return name

    def whole(self, is_caps: bool) -> Structure:
        """Parses the whole text, which is caps or a structure."""
        if "\0" in self.text:
            raise self.mistake(self.text.index("\0"), "a text without the byte 0")
        self.match(_FIELD_SPACES)
        name = self.structure_name()
        features = self.features() if is_caps and self.skip("(") else ()
        fields: Dict[str, str] = {}
        canonical = [name + (f"({', '.join(features)})" if features else "")]
        while True:
            self.match(_FIELD_SPACES)
            if self.at == len(self.text) or self.skip(";"):
                break
            self.expect(",", "a comma or the end of the text")
            self.match(_FIELD_SPACES)
            if self.at == len(self.text) or self.text[self.at] == ";":
                continue
            at = self.at
            field = self.short(at, self.match(_NAME))
            if not field:
                raise self.mistake(at, "the name of a field")
            self.match(_FIELD_SPACES)
            self.expect("=", "= and a value")
            value, fields[field] = self.value("")
            canonical.append(f"{field}={value}")
        self.match(_SPACES)
        if self.at < len(self.text):
            raise self.mistake(self.at, "the end of the text, because there can be only one structure,")
        return Structure(name, features, fields, ", ".join(canonical))

    def structure_name(self) -> str:
        at = self.at
        # GStreamer does not find the end of a name in quotes if it is in brackets.
        if self.depth == 0 and self.text.startswith('"', at):
            name = re.sub(r"(?s)\\(.)", r"\1", self.token()[1:-1])
        else:
            name = self.match(_NAME)
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9/\-_.:+]*", name):
            raise self.mistake(at, "a name, such as video/x-raw,")
        if name in ("ANY", "EMPTY", "NONE"):
            raise self.mistake(at, "the name of one format")
        if name.startswith(("video/x-raw-", "audio/x-raw-")):
            raise self.mistake(at, "a name of GStreamer 1.0, such as video/x-raw,")
        return self.short(at, name)

    def features(self) -> Tuple[str, ...]:
        at = self.at
        # GStreamer does not need the closing parenthesis if the text ends there.
        end = self.text.find(")", at)
        text, self.at = (self.text[at:], len(self.text)) if end < 0 else (self.text[at:end], end + 1)
        if text == "ANY":
            raise self.mistake(at, "the features themselves, because ANY is not fixed,")
        names = []
        for feature in text.split(",") if text else ():
            name = feature.lstrip(" ")
            if not _FEATURE.fullmatch(name):
                raise self.mistake(at, "a feature, such as memory:SystemMemory,")
            names.append(self.short(at, name))
            at += len(feature) + 1
        return tuple(names)

    def value(self, kind: str) -> Tuple[str, str]:
        """Parses a value. ``kind`` is the type that the enclosing container gives. Returns the canonical form, and the value
        without type and quotes."""
        self.match(_SPACES)
        start, is_set = self.at, False
        if self.skip("("):
            kind, is_set = self.cast(kind)
        at = self.at
        char = self.text[at : at + 1]
        if is_set and char != "{":
            raise self.mistake(at, "a list in { }")
        if char == "{" and not is_set:
            raise self.mistake(at, "a single value, because a list is not fixed,")
        if char in ("{", "<"):
            text = self.elements("}" if is_set else ">", kind)
            text = "(/uniquelist)" + text if is_set else text
            return text, text
        if char == "[":
            text = self.in_brackets(kind)
            return text, text
        return self.scalar(kind, start)

    def cast(self, outer: str) -> Tuple[str, bool]:
        self.match(_SPACES)
        at = self.at
        name = self.match(_NAME)
        self.match(_SPACES)
        self.expect(")", "a type, such as (int),")
        self.match(_SPACES)
        # Newer versions of GStreamer know sets, as in (int/uniquelist){ 1, 2 }.
        is_set = name.endswith("/uniquelist")
        name = name[: -len("/uniquelist")] if is_set else name
        kind = outer if is_set and not name else _ALIASES.get(name)
        if kind is None:
            raise self.mistake(at, "a known type, such as int, string, fraction or buffer,")
        return kind, is_set

    def deeper(self) -> int:
        if self.depth == _MAX_DEPTH:
            raise self.mistake(self.at, "a value with fewer nested arrays and structures")
        return self.depth + 1

    def elements(self, close: str, kind: str) -> str:
        depth, self.depth = self.depth, self.deeper()
        opening = self.text[self.at]
        self.at += 1
        self.match(_SPACES)
        values: List[str] = []
        while not self.skip(close):
            if self.skip(","):
                self.match(_SPACES)
                if self.text.startswith(",", self.at):
                    raise self.mistake(self.at, "a value")
                continue
            values.append(self.value(kind)[0])
            self.match(_SPACES)
            if self.text[self.at : self.at + 1] not in (",", close):
                raise self.mistake(self.at, f"a comma or {close}")
        self.depth = depth
        return f"{opening} {', '.join(values)} {close}" if values else f"{opening} {close}"

    def in_brackets(self, kind: str) -> str:
        at, level = self.at, 0
        # As in GStreamer, brackets in quotes count too.
        for bracket in re.finditer(r"[\[\]]", self.text[at:]):
            level += 1 if bracket.group() == "[" else -1
            if level == 0:
                break
        else:
            raise self.mistake(at, "a closing bracket")
        inner = self.text[at + 1 : at + bracket.start()]
        self.at += bracket.end()
        if kind in _NESTED:
            return self.nested(kind, inner, at + 1)
        # GStreamer first takes brackets for a range.
        if kind or ("," in inner and "=" not in inner and "(" not in inner):
            raise self.mistake(at, "a single value, because a range is not fixed,")
        try:
            return self.nested("structure", inner, at + 1)
        except Mistake as as_structure:
            try:
                return self.nested("GstCaps", inner, at + 1)
            except Mistake as as_caps:
                raise max(as_caps, as_structure, key=lambda mistake: mistake.position) from None

    def nested(self, kind: str, inner: str, at: int, quoted: bool = False) -> str:
        parser = _Parser(inner, self.mistake(at, "").position, self.was_quoted or quoted, self.deeper())
        return f"({kind})[{parser.whole(kind == 'GstCaps').canonical}]"

    def token(self) -> str:
        if not self.text.startswith('"', self.at):
            return self.match(_WORD)
        token = self.match(_QUOTED)
        if not token:
            raise self.mistake(self.at, "a closing quote")
        return token

    def scalar(self, kind: str, start: int) -> Tuple[str, str]:
        at = self.at
        token = self.token()
        if not token:
            raise self.mistake(at, "a value")
        is_quoted = token.startswith('"')
        try:
            if kind in _NESTED:
                text = self.nested(kind, _unquote(token) if is_quoted else token, at, is_quoted)
                return text, text
            if not kind:
                # GStreamer takes numbers in quotes for numbers too. It warns of that, because a string may have been meant.
                inner = token[1:-1] if is_quoted else token
                for guess in _GUESSES:
                    value = _SCALARS[guess][0](inner)
                    if value is not None:
                        return f"({guess}){value}", value
            elif kind != "string":
                function, expected = _SCALARS[kind]
                value = function(token)
                if value is None:
                    raise _Wrong(expected)
                return f"({kind}){value}", value
            plain = _unquote(token) if is_quoted else token
        except _Wrong as wrong:
            raise self.mistake(at, str(wrong)) from None
        if token == "NULL":
            # GStreamer prints a critical warning if a container has a missing string.
            if self.depth:
                raise self.mistake(start, "a string, not NULL,")
            return "(string)NULL", token
        return f"(string){quote(plain)}", plain
