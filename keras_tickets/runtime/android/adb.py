"""A phone behind `adb`: commands, files, and a folder that never stays behind."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shlex
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping

from keras_tickets._util.process import converse

# Which phone, where there are several: adb's own variable.
SERIAL = "ANDROID_SERIAL"

# Where the shell of a phone may write and run programs.
BASE = "/data/local/tmp/keras_tickets"

_STATES = {
    "unauthorized": "has not allowed this computer to debug it: unlock the phone and "
    "accept 'Allow USB debugging'",
    "offline": "does not answer: unplug it and plug it in again, and if that does not "
    "help run `adb kill-server`",
    "no permissions": "may not be opened by this user: install your system's Android "
    "udev rules (package android-udev-rules), then plug the phone in again",
}

# The last line that a command prints on the phone. adb's own exit status is no proof:
# it is 0 too when the connection breaks.
_END = "keras_tickets: exit status "

# Removes the folder when it is told to, and also when this machine or the cable is
# gone: then `read` ends, and what still runs in the folder is ended with it.
_KEEPER = """trap '' HUP PIPE
mkdir -p {folder} || {{ echo '{{"error": "it cannot be created"}}'; exit; }}
echo '{{"created": true}}'
read -r _
for file in {folder}/*.pid; do kill -9 $(cat "$file"); done 2>/dev/null
rm -rf {folder}
rmdir {base} 2>/dev/null
echo '{{"removed": true}}'
"""
_KEEPER_TIMEOUT = 30.0


@dataclasses.dataclass(frozen=True)
class Said:
    """What a command on the phone came to.

    Args:
        status: Its exit status, 128 and more if a signal ended it.
        text: All that it printed, errors included.
    """

    status: int
    text: str


def devices(text: str) -> dict[str, str]:
    r"""Read what `adb devices` prints.

    Args:
        text: All of it; lines about adb's own server come first.

    Returns:
        Serial -> state; `"device"` is a phone that is ready.

    Example:
    >>> devices("List of devices attached\nR58M\tdevice\nP6\tunauthorized\n")
    {'R58M': 'device', 'P6': 'unauthorized'}
    """
    _, _, listed = text.partition("List of devices attached")
    pairs = (line.split("\t", 1) for line in listed.splitlines() if "\t" in line)
    return {serial: state.strip() for serial, state in pairs}


def choose(found: Mapping[str, str], wanted: str | None) -> str:
    """Choose the phone to use.

    Args:
        found: Serial -> state.
        wanted: What `ANDROID_SERIAL` says, if anything.

    Returns:
        Its serial.

    Raises:
        RuntimeError: If there is none, none is ready, or there are several.

    Example:
    >>> choose({"R58M": "device", "P6": "unauthorized"}, wanted=None)
    'R58M'
    """
    if wanted and wanted not in found:
        attached = ", ".join(map(repr, found)) or "none"
        raise RuntimeError(
            f"{SERIAL} names the phone '{wanted}', which is not attached. Attached: "
            f"{attached}. Plug it in, or set {SERIAL} to another one."
        )
    if not found:
        raise RuntimeError(
            "No phone is attached. Turn on USB debugging on the phone (Settings, "
            "Developer options), plug it in, and look whether `adb devices` lists it."
        )
    candidates = {wanted: found[wanted]} if wanted else found
    ready = [serial for serial, state in candidates.items() if state == "device"]
    if not ready:
        raise RuntimeError(" ".join(map(_unready, candidates, candidates.values())))
    if len(ready) > 1:
        raise RuntimeError(
            f"{len(ready)} phones are attached: {', '.join(map(repr, ready))}. Choose "
            f"one by the environment variable {SERIAL}: {SERIAL}={ready[0]}"
        )
    return ready[0]


def _unready(serial: str, state: str) -> str:
    for known, remedy in _STATES.items():
        if state.startswith(known):
            return f"The phone '{serial}' is '{known}': it {remedy}."
    return (
        f"The phone '{serial}' is in the state '{state}'; expected 'device'. Start "
        "Android on it."
    )


def attached(timeout: float) -> Phone:
    """Find the one phone to use.

    Args:
        timeout: Seconds that each command on it may take.

    Returns:
        The phone.

    Raises:
        RuntimeError: If there is no `adb`, or not one phone that is ready.
    """
    program = shutil.which("adb")
    if program is None:
        raise RuntimeError(
            "It needs `adb`, and there is none on the PATH. Install it from your "
            "system's packages (on Debian: adb), or Android's SDK Platform-Tools."
        )
    listed = _run([program, "devices"], _KEEPER_TIMEOUT)
    if listed.status:
        raise RuntimeError(f"`adb devices` fails: {listed.text.strip()}")
    serial = choose(devices(listed.text), os.environ.get(SERIAL))
    return Phone(program, serial, timeout)


class Phone:
    """A phone that is attached and ready.

    Args:
        program: Where `adb` is.
        serial: Which phone.
        timeout: Seconds that each command may take.
    """

    def __init__(self, program: str, serial: str, timeout: float) -> None:
        self.serial = serial
        self._adb, self._timeout = [program, "-s", serial], timeout

    def shell(self, command: str) -> Said:
        """Run a command in the phone's shell.

        Args:
            command: For any POSIX shell.

        Returns:
            Its exit status and its words.

        Raises:
            RuntimeError: If the phone is gone, or the command takes too long.
        """
        asked = f"( {command}\n) 2>&1; status=$?; echo; echo '{_END}'$status"
        said = self._call("shell", asked)
        text, mark, status = said.text.rpartition(_END)
        if not mark or not status.strip().isdigit():
            raise self._failed("running a command on it", said)
        return Said(int(status), text)

    def push(self, local: pathlib.Path, remote: str) -> None:
        """Copy a file to the phone.

        Args:
            local: The file on this machine.
            remote: Where it shall be on the phone.

        Raises:
            RuntimeError: If the phone is gone or does not take it.
        """
        self._copy("push", str(local.absolute()), remote, f"copying '{local}' to it")

    def pull(self, remote: str, local: pathlib.Path) -> None:
        """Copy a file from the phone.

        Args:
            remote: The file on the phone.
            local: Where it shall be on this machine.

        Raises:
            RuntimeError: If the phone is gone or does not give it.
        """
        self._copy("pull", remote, str(local), f"copying '{remote}' from it")

    @contextlib.contextmanager
    def folder(self) -> Iterator[str]:
        """Make a folder on the phone that is gone when the block ends.

        It goes also when this process is killed or the phone is unplugged: a shell on
        the phone waits for that. Programs in it that leave their process number in a
        file `*.pid` are ended.

        Yields:
            Its path.

        Raises:
            RuntimeError: If it cannot be made.
        """
        folder = f"{BASE}/{uuid.uuid4().hex[:12]}"
        script = _KEEPER.format(folder=folder, base=BASE)
        with converse([*self._adb, "shell", script], timeout=_KEEPER_TIMEOUT) as keeper:
            try:
                keeper.answer("made")
            except RuntimeError as error:
                raise RuntimeError(
                    f"The folder '{folder}' cannot be made on the phone "
                    f"'{self.serial}'. {error}"
                ) from error
            try:
                yield folder
            finally:
                # Without a phone, the phone sees to it.
                with contextlib.suppress(RuntimeError):
                    keeper.ask({}, "removed")

    def _copy(self, way: str, source: str, target: str, what: str) -> None:
        said = self._call(way, source, target)
        if said.status:
            raise self._failed(what, said, f"{what} failed.")

    def _call(self, *arguments: str) -> Said:
        return _run([*self._adb, *arguments], self._timeout)

    def _failed(
        self, what: str, said: Said, attached: str | None = None
    ) -> RuntimeError:
        """Return the error; `attached` is what went wrong if the phone is there."""
        words = said.text.strip()[-500:]
        found = devices(_run([self._adb[0], "devices"], _KEEPER_TIMEOUT).text)
        if found.get(self.serial) == "device" and attached:
            return RuntimeError(
                f"The phone '{self.serial}' is attached, but {attached} {words}"
            )
        if found.get(self.serial) == "device":
            return RuntimeError(
                f"adb lost the phone '{self.serial}' for a moment while {what}; it is "
                f"attached. Try again, with another cable if it stays so. {words}"
            )
        return RuntimeError(
            f"The phone '{self.serial}' was disconnected while {what}. Plug it in "
            f"again; what was on it for this run, it removes itself. {words}"
        )


def _run(command: list[str], timeout: float) -> Said:
    try:
        finished = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        words = shlex.join(command)[:200]
        raise RuntimeError(
            f"adb was ended: it gave no answer for {timeout:g} seconds to `{words}`."
        ) from error
    except OSError as error:
        raise RuntimeError(
            f"'{command[0]}' cannot be started: {error.strerror}."
        ) from error
    # Phones before Android 7 end lines as terminals do.
    text = finished.stdout.decode("utf-8", "replace").replace("\r\n", "\n")
    return Said(finished.returncode, text)
