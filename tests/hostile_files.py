"""Malformed files, and the error that each must give.

A case writes its files into a folder and gives the words that the one-line error must contain; an
empty tuple marks a file that is unusual but valid. ``{file}`` is the path of the file.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import socket
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["CASES", "Case"]

WORDS = "dog man woman guitar music car house tree river book child bird".split()
GOOD = "".join(f"the cat sat on the {word}\n" for word in WORDS)
ROWS = "".join(f"a {word},a big {word}\n" for word in WORDS)
TABLE = "sent0,sent1\n" + ROWS
GRADED = "sentence1,sentence2,score\n" + "".join(
    f"a {word},a big {word},{number % 6}\n" for number, word in enumerate(WORDS)
)
OBJECT = '{"anchor": "a cat", "positive": "a big cat"}\n'
OBJECTS = "".join(f'{{"anchor": "a {word}", "positive": "a big {word}"}}\n' for word in WORDS)


class Case:
    """One file.

    Args:
        name: of the file.
        content: its bytes or text, or what makes it at a path.
        said: words of the error; nothing: it is read.
        options: of the command that reads it.
    """

    def __init__(self, name: str, content: Any, *said: str, options: tuple[str, ...] = ()) -> None:
        self.name = name
        self.said = said
        self.options = options
        self._content = content

    def write(self, folder: Path) -> Path:
        """Make the file."""
        path = folder / self.name
        content: bytes | str | Callable[[Path], object] = self._content
        if callable(content):
            content(path)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_bytes(content.encode("utf-8", "surrogatepass"))
        return path


def squeezed(text: str) -> bytes:
    return gzip.compress(text.encode(), mtime=0)


def bomb(path: Path) -> None:
    """300 MB of one letter in 300 kB."""
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(300):
            file.write(b"a" * 1_000_000)


def nested_bomb(path: Path) -> None:
    """Write gzip in gzip in gzip, which does not unpack to text."""
    content = b"a" * 1_000_000
    for _ in range(3):
        content = gzip.compress(content, mtime=0)
    path.write_bytes(content)


def parquet(columns: dict[str, Any], **more: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table(columns), path, **more)

    return write


def cut_parquet(path: Path) -> None:
    parquet({"text": ["a cat"] * 100})(path)
    path.write_bytes(path.read_bytes()[:-20])


def spoilt_parquet(path: Path) -> None:
    parquet({"text": [f"a cat {n}" for n in range(1000)]})(path)
    content = bytearray(path.read_bytes())
    content[40:400] = bytes(random.Random(0).randbytes(360))
    path.write_bytes(content)


def not_utf8_parquet(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = pa.array([b"a cat", b"caf\xe9"], pa.binary())
    pq.write_table(pa.table({"text": pa.Array.from_buffers(pa.string(), 2, texts.buffers())}), path)


def parquet_of_a_spoilt_name(path: Path) -> None:
    parquet({"tex?": ["a cat"]}, store_schema=False)(path)
    path.write_bytes(path.read_bytes().replace(b"tex?", b"te\xf8t"))


def nothing(path: Path) -> None:
    """The file is not made."""
    assert not path.name.startswith("/")


def loop(path: Path) -> None:
    other = path.with_name("other.txt")
    path.symlink_to(other)
    other.symlink_to(path)


def bound_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(path.name)
    finally:
        os.chdir(here)


def deep(depth: int) -> str:
    return '{"anchor": ' + "[" * depth + "]" * depth + "}\n"


CASES: dict[str, Case] = {
    # ---- text
    "empty": Case("a.txt", "", "{file}: ", "empty"),
    "nothing but blank lines": Case("a.txt", "\n \n\t\n", "{file}", "only blank lines"),
    "blank line in the middle": Case("a.txt", "a cat\n\na dog\n", "{file}:2: blank line"),
    "blank lines at the end": Case("a.txt", GOOD + "\n\n"),
    "no line end at the end": Case("a.txt", GOOD.rstrip()),
    "windows line ends": Case("a.txt", GOOD.replace("\n", "\r\n")),
    "line ends of old Macs": Case("a.txt", GOOD.replace("\n", "\r"), "{file}:1", "carriage return"),
    "carriage return inside": Case("a.txt", GOOD + "a\rcat\n", "{file}:13", "carriage return"),
    "byte order mark": Case("a.txt", b"\xef\xbb\xbf" + GOOD.encode()),
    "nothing but a byte order mark": Case("a.txt", b"\xef\xbb\xbf", "{file}"),
    "UTF-16, little end": Case("a.txt", GOOD.encode("utf-16"), "{file}:1: UTF-16", "iconv"),
    "UTF-16, big end": Case("a.txt", b"\xfe\xff" + GOOD.encode("utf-16-be"), "UTF-16", "iconv"),
    "UTF-16 without mark": Case("a.txt", GOOD.encode("utf-16-le"), "{file}:1: NUL byte at byte 2"),
    "UTF-32": Case("a.txt", GOOD.encode("utf-32"), "{file}:1: UTF-32", "iconv"),
    "Latin-1": Case("a.txt", GOOD.encode() + b"caf\xe9 noir\n", "{file}:13: not UTF-8", "0xe9"),
    "Shift-JIS": Case("a.txt", "猫が座る\n".encode("shift_jis"), "{file}:1: not UTF-8", "iconv"),
    "half a character at the end": Case(
        "a.txt", GOOD.encode() + b"caf\xc3", "{file}:13: not UTF-8"
    ),
    "overlong UTF-8": Case("a.txt", b"a \xc0\x80 cat\n", "{file}:1: not UTF-8", "0xc0"),
    "surrogate in UTF-8": Case("a.txt", "a \ud800 cat\n", "{file}:1: not UTF-8", "0xed"),
    "NUL": Case("a.txt", b"a cat\na\0dog\n", "{file}:2: NUL byte at byte 2"),
    "random bytes": Case("a.txt", random.Random(1).randbytes(5000), "{file}:1: "),
    "a picture": Case("a.txt", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "{file}:1: not UTF-8"),
    "a line of 3 MB": Case("a.txt", "a" * 3_000_000, "{file}:1: ", "longer than 1000000 bytes"),
    "3 MB without a word": Case("a.txt", " " * 3_000_000 + "\n", "{file}:1: ", "longer than"),
    "escape sequences of terminals": Case("\x1b[31ma.md", GOOD, "\\x1b[31ma.md", "suffix '.md'"),
    "line end in the name": Case("a\nb.md", GOOD, "a\\nb.md", "suffix '.md'"),
    "unknown suffix": Case("a.doc", GOOD, "{file}: suffix '.doc' is not supported", ".txt"),
    "no suffix": Case("corpus", GOOD, "{file}: the file name has no suffix"),
    # ---- gzip
    "gzip": Case("a.txt.gz", squeezed(GOOD)),
    "gzip without its suffix": Case("a.txt", squeezed(GOOD), "{file}: gzip data", ".gz"),
    "gzip that is none": Case("a.txt.gz", GOOD, "{file}: damaged gzip data"),
    "gzip cut short": Case("a.txt.gz", squeezed(GOOD)[:-12], "{file}: truncated gzip data"),
    "gzip with another sum": Case(
        "a.txt.gz", squeezed(GOOD)[:-8] + b"\0" * 8, "{file}: damaged gzip data"
    ),
    "gzip spoilt inside": Case(
        "a.txt.gz",
        gzip.compress(random.Random(2).randbytes(9000).hex().encode())[:3000] + b"\xff" * 2000,
        "{file}",
    ),
    "gzip with rubbish behind": Case("a.txt.gz", squeezed(GOOD) + b"rubbish", "{file}: damaged"),
    "two gzips in one": Case("a.txt.gz", squeezed(GOOD) + squeezed(GOOD)),
    "gzip of nothing": Case("a.txt.gz", squeezed(""), "{file}: ", "empty"),
    "gzip bomb": Case("a.txt.gz", bomb, "{file}:1: ", "longer than"),
    "gzip in gzip": Case("a.txt.gz", nested_bomb, "{file}"),
    "zlib under the name of gzip": Case("a.txt.gz", zlib.compress(GOOD.encode()), "damaged gzip"),
    # ---- csv and tsv
    "csv": Case("a.csv", TABLE),
    "csv with a byte order mark": Case("a.csv", "\ufeff" + TABLE),
    "csv with a quote left open": Case("a.csv", TABLE + '"a cat,a dog\n', "{file}:14: bad csv"),
    "csv with text behind a quote": Case("a.csv", TABLE + '"a" cat,dog\n', "{file}:14: bad csv"),
    "csv with a row too short": Case("a.csv", TABLE + "a cat\n", "{file}:14: ", "1"),
    "csv with a row too long": Case("a.csv", TABLE + "a,b,c\n", "{file}:14: ", "3"),
    "csv with a blank cell": Case(
        "a.csv", TABLE + "a cat, \n", "{file}:14: ", "second column", "blank"
    ),
    "csv with two columns of one name": Case(
        "a.csv", "sent0,sent0,sent1\n" + "a,b,c\n" * 9, "{file}:1: ", "sent0"
    ),
    "csv with semicolons": Case("a.csv", TABLE.replace(",", ";"), "{file}:1: ", "sent0;sent1"),
    "csv with tabs": Case("a.csv", TABLE.replace(",", "\t"), "{file}:1", ".tsv"),
    "csv of a header": Case("a.csv", "sent0,sent1\n", "{file}: the file has a header but no row"),
    "csv without a header": Case("a.csv", ROWS, "{file}:1: ", "--columns"),
    "csv with a header of commas": Case("a.csv", ",,\na,b,c\n", "{file}:1"),
    "csv without the column": Case(
        "a.csv", TABLE, "{file}:1: ", "premise", "sent0", options=("--columns", "premise,sent1")
    ),
    "csv with a position beyond": Case(
        "a.csv", ROWS, "{file}:1: ", "7", options=("--columns", "0,7")
    ),
    "csv with a NUL": Case("a.csv", TABLE + "a\0,b\n", "{file}:14: NUL byte"),
    "csv with a row of 3 MB in quotes": Case(
        "a.csv", TABLE + '"' + "a\n" * 1_500_000, "{file}:14: the row that begins here"
    ),
    "tsv with commas": Case("a.tsv", TABLE, "{file}:1: the header 'sent0,sent1' is not one of"),
    "tsv with ragged rows": Case("a.tsv", "sent0\tsent1\na\tb\na\tb\tc\n", "{file}:3: "),
    "labels that are no numbers": Case(
        "a.csv",
        "sent0,sent1,label\na,b,1\na,c,high\n",
        "{file}:3: ",
        "high",
        options=("--method", "margin-contrastive", "--set", "data.label=label"),
    ),
    "graded csv": Case("a.csv", GRADED),
    "graded csv with a score that is no number": Case(
        "a.csv", GRADED + "a,b,high\n", "{file}:14: the label is 'high'"
    ),
    "graded csv with one text": Case(
        "a.csv", "text,score\na,1\nb,2\n", "{file}:1: ", "--columns text"
    ),
    "labels that are not finite": Case(
        "a.csv",
        "sent0,sent1,label\na,b,1\na,c,inf\n",
        "{file}:3: ",
        "inf",
        options=("--method", "margin-contrastive", "--set", "data.label=label"),
    ),
    # ---- jsonl
    "jsonl": Case("a.jsonl", OBJECTS),
    "jsonl that is none": Case("a.jsonl", GOOD, "{file}:1: ", "JSON"),
    "jsonl of one array": Case("a.jsonl", json.dumps([{"text": "a"}] * 3, indent=1), "{file}:1: "),
    "jsonl with an array": Case("a.jsonl", OBJECT + '["a", "b"]\n', "{file}:2: ", "object"),
    "jsonl a million deep": Case("a.jsonl", deep(400_000), "{file}:1: "),
    "jsonl with numbers": Case("a.jsonl", OBJECT + '{"anchor": 1, "positive": 2}\n', "{file}:2: "),
    "jsonl with null": Case(
        "a.jsonl", OBJECT + '{"anchor": null, "positive": "b"}\n', "{file}:2: "
    ),
    "jsonl without a key": Case(
        "a.jsonl", OBJECT + '{"anchor": "a cat"}\n', "{file}:2: ", "positive"
    ),
    "jsonl with one key twice": Case(
        "a.jsonl", '{"anchor": "a", "anchor": "b", "positive": "c"}\n', "{file}:1: ", "anchor"
    ),
    "jsonl with half a surrogate pair": Case(
        "a.jsonl", OBJECT + '{"anchor": "a \\ud800", "positive": "b"}\n', "{file}:2: ", "surrogate"
    ),
    "jsonl with a number of 5,000 digits": Case(
        "a.jsonl", OBJECT + '{"anchor": ' + "9" * 5000 + ', "positive": "b"}\n', "{file}:2: "
    ),
    "jsonl with negatives that are no list": Case(
        "a.jsonl", '{"anchor": "a", "positive": "b", "negatives": 5}\n', "{file}:1: ", "negatives"
    ),
    "jsonl with negatives that are no text": Case(
        "a.jsonl", '{"anchor": "a", "positive": "b", "negatives": [5]}\n', "{file}:1: "
    ),
    "jsonl cut short": Case("a.jsonl", OBJECT + OBJECT[:20], "{file}:2: "),
    # ---- parquet
    "parquet": Case("a.parquet", parquet({"text": [f"a big {word}" for word in WORDS]})),
    "parquet that is none": Case("a.parquet", GOOD, "{file}: "),
    "parquet of nothing": Case("a.parquet", "", "{file}: "),
    "parquet cut short": Case("a.parquet", cut_parquet, "{file}: "),
    "parquet spoilt inside": Case("a.parquet", spoilt_parquet, "{file}"),
    "parquet without rows": Case("a.parquet", parquet({"text": []}), "{file}: "),
    "parquet of numbers": Case("a.parquet", parquet({"text": [1, 2]}), "{file}", "text"),
    "parquet of lists": Case("a.parquet", parquet({"text": [["a"], ["b"]]}), "{file}"),
    "parquet with null": Case("a.parquet", parquet({"text": ["a", None]}), "{file}:2: "),
    "parquet that is not UTF-8": Case("a.parquet", not_utf8_parquet, "{file}:2"),
    "parquet with a column's name not UTF-8": Case(
        "a.parquet", parquet_of_a_spoilt_name, "{file}: not a readable parquet file"
    ),
    "parquet of other columns": Case("a.parquet", parquet({"x": ["a"], "y": ["b"]}), "{file}"),
    # ---- paths that are not files
    "missing": Case("a.txt", nothing, "{file}: no such file"),
    "link to nothing": Case("a.txt", lambda p: p.symlink_to("gone.txt"), "{file}: a link"),
    "links in a circle": Case("a.txt", loop, "{file}: cannot be opened"),
    "pipe": Case("a.txt", os.mkfifo, "{file}: is a pipe"),
    "socket": Case("a.txt", bound_socket, "{file}: is a device or socket"),
    "device": Case("a.txt", lambda p: p.symlink_to("/dev/zero"), "{file}: is a device"),
    "file that cannot be read": Case("a.txt", lambda p: p.symlink_to("/proc/self/mem"), "{file}"),
    "folder of that name": Case("a.txt", Path.mkdir, "{file}: the folder has no file"),
    "name too long": Case("x" * 300 + ".txt", nothing, "cannot be opened: File name too long"),
}
