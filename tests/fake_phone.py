"""A phone that is this machine's shell behind an `adb` of the tests' own."""

from __future__ import annotations

import pathlib

from keras_tickets.runtime.android import adb as adb_module
from keras_tickets.runtime.android.benchmark_model import VARIABLE
from keras_tickets.runtime.android.phone_target import Android
from keras_tickets.runtime.target import VARIABLE as RUNNERS_VARIABLE

READY = "List of devices attached\nR58M\tdevice\n"

_ADB = """#!/bin/sh
export PATH={bin}:/usr/bin:/bin
[ "$1" = -s ] && shift 2
case $1 in
devices) cat {root}/devices ;;
push | pull)
    [ -e {root}/refused ] && cat {root}/refused && exit 1
    cp "$2" "$3"
    ;;
shell)
    case $2 in trap*) exec sh -c "$2" ;; esac
    said=$(sh -c "$2")
    # Without a phone adb says nothing, and that all went well.
    [ -e {root}/unplugged ] || printf '%s\\n' "$said" | sed "$(cat {root}/ends)"
    ;;
esac
"""

_GETPROP = """#!/bin/sh
case $1 in
ro.product.manufacturer) echo Google ;;
ro.product.model) echo Pixel 6 ;;
ro.board.platform) echo gs101 ;;
ro.build.version.release) echo 14 ;;
ro.product.cpu.abilist) echo arm64-v8a,armeabi-v7a ;;
*) echo ;;
esac
"""


class FakePhone:
    """Puts the fake `adb` first on the PATH; nothing else of this machine is on it.

    Args:
        root: An empty folder.
        monkeypatch: Takes all back.
    """

    def __init__(self, root: pathlib.Path, monkeypatch) -> None:
        self.root, self._bin = root, root / "bin"
        self.folder = root / "data"
        self._bin.mkdir()
        self.program("adb", _ADB.format(bin=self._bin, root=root))
        self.program("getprop", _GETPROP)
        self.devices(READY)
        (root / "ends").touch()
        monkeypatch.setenv("PATH", str(self._bin))
        monkeypatch.setenv(RUNNERS_VARIABLE, str(root / "runners"))
        monkeypatch.delenv(VARIABLE, raising=False)
        monkeypatch.delenv(adb_module.SERIAL, raising=False)
        monkeypatch.setattr(adb_module, "BASE", str(self.folder))

    @property
    def runner(self) -> Android:
        return Android(timeout=20, program=str(self._bin / "benchmark_model"))

    def program(self, name: str, content: str | bytes) -> None:
        path = self._bin / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(0o755)

    def benchmark(self, script: str) -> None:
        """A `benchmark_model` that does this; `$graph` is the file."""
        graph = "for flag; do case $flag in --graph=*) graph=${flag#*=};; esac; done\n"
        self.program("benchmark_model", f"#!/bin/sh\n{graph}{script}\n")

    def devices(self, text: str) -> None:
        (self.root / "devices").write_text(text)

    def unplug(self) -> str:
        """A command that unplugs the phone."""
        (self.root / "none").write_text("List of devices attached\n\n")
        return f"touch {self.root}/unplugged; cp {self.root}/none {self.root}/devices"

    def refuse(self, words: str) -> None:
        """From now on files are not copied."""
        (self.root / "refused").write_text(words)

    def ends_lines_as_a_terminal(self) -> None:
        """Puts a carriage return before each end of a line."""
        (self.root / "ends").write_text(r"s/$/\r/")

    def is_clean(self) -> bool:
        """Whether nothing is left on it."""
        return not self.folder.exists()
