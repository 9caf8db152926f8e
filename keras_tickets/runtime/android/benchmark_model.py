"""LiteRT's `benchmark_model` on a phone: where it is, whether it fits, running it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shlex
import struct
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np

from keras_tickets._util.file_tensor import Array
from keras_tickets._util.process import end
from keras_tickets.runtime.android.adb import BASE, Phone
from keras_tickets.runtime.target import folder_of

# The program on this machine, to be copied to the phone for each run.
VARIABLE = "KERAS_TICKETS_BENCHMARK_MODEL"

# The program on the phone, if there is none on this machine.
ON_PHONE = f"{BASE}/benchmark_model"

# e_machine of an ELF file -> the processors of Android that it is for.
_MACHINES = {
    183: ("arm64-v8a",),
    40: ("armeabi-v7a", "armeabi"),
    62: ("x86_64",),
    3: ("x86",),
    243: ("riscv64",),
}

_GET = "Get LiteRT's native benchmark binary for {abi} (see export/android/README.md)"


def local_program() -> pathlib.Path | None:
    """Find `benchmark_model` on this machine.

    Returns:
        Where it is: as the environment variable says, else in the runner's folder; None
        if it is in neither.

    Raises:
        RuntimeError: If the variable names no file.
    """
    if named := os.environ.get(VARIABLE):
        path = pathlib.Path(named).expanduser()
        if not path.is_file():
            raise RuntimeError(f"{VARIABLE} names '{named}', which is no file.")
        return path
    path = folder_of("android") / "benchmark_model"
    return path if path.is_file() else None


def check_program(phone: Phone, abis: tuple[str, ...], on_phone: str) -> None:
    """Make sure that there is a program, and that the phone can run it.

    Args:
        phone: The phone.
        abis: The kinds of programs that it runs.
        on_phone: Where on the phone it is, unless there is one on this machine.

    Raises:
        RuntimeError: If it is missing, not executable or for another processor.
    """
    get = _GET.format(abi=abis[0] if abis else "the phone's processor")
    local = local_program()
    if local is not None:
        with open(local, "rb") as file:
            header = file.read(20)
        where = f"'{local}'"
    else:
        where = f"'{on_phone}' on the phone"
        header = _header(phone, on_phone, get)
    if problem := misfit(header, abis):
        raise RuntimeError(f"{where} {problem} {get}.")


def _header(phone: Phone, path: str, get: str) -> bytes:
    quoted = shlex.quote(path)
    if phone.shell(f"[ -f {quoted} ]").status:
        raise RuntimeError(
            f"It needs LiteRT's benchmark_model, and there is none: not in "
            f"'{folder_of('android')}', and not in '{path}' on the phone. {get}, and "
            f"put it in the first, or name it in the environment variable {VARIABLE}."
        )
    if phone.shell(f"[ -x {quoted} ]").status:
        raise RuntimeError(
            f"'{path}' on the phone is not executable. "
            f"Run: adb -s {phone.serial} shell chmod +x {quoted}"
        )
    said = phone.shell(f"od -An -v -tx1 -N20 {quoted}").text
    return bytes.fromhex("".join(said.split()))


def misfit(header: bytes, abis: tuple[str, ...]) -> str | None:
    """Say why a program cannot run on a phone.

    Args:
        header: The first 20 bytes of the program.
        abis: The kinds of programs that the phone runs; unknown ones are not judged.

    Returns:
        The reason; None if it can.

    Example:
    >>> misfit(b"PK", ("arm64-v8a",))
    'is no program for Android.'
    """
    if header.startswith(b"#!"):
        return None
    if not header.startswith(b"\x7fELF") or len(header) < 20:
        return "is no program for Android."
    (machine,) = struct.unpack_from("<H", header, 18)
    fits = _MACHINES.get(machine, (f"machine {machine}",))
    if not abis or set(fits) & set(abis):
        return None
    return f"is for {fits[0]}, and the phone runs {', '.join(abis)}."


class Bench:
    """A file that waits on a phone, beside the program that runs it.

    Args:
        phone: The phone.
        folder: The folder on it, with `model.tflite`.
        program: The program on it.
        cores: What binds the program to cores: `"taskset c0"`, or nothing.

    Attributes:
        folder: The same.
    """

    def __init__(self, phone: Phone, folder: str, program: str, cores: str) -> None:
        self.folder, self._phone = folder, phone
        self._program, self._cores = shlex.quote(program), cores

    @property
    def fingerprint(self) -> str:
        """The beginning of the program's SHA-256: it prints no version."""
        said = self._phone.shell(f"sha256sum {self._program}")
        return "unknown" if said.status else said.text.split()[0][:12]

    def send(self, values: Sequence[Array]) -> list[str]:
        """Copy inputs to the phone.

        Args:
            values: Each input, in the order of the graph.

        Returns:
            The flags that make the program read them.

        Raises:
            RuntimeError: If the phone is gone or does not take them.
        """
        # The names are ours: the program only warns if they are not the graph's.
        names = [f"input_{index}" for index in range(len(values))]
        with tempfile.TemporaryDirectory() as folder:
            for name, value in zip(names, values, strict=True):
                local = pathlib.Path(folder, name)
                np.ascontiguousarray(value).tofile(local)
                self._phone.push(local, f"{self.folder}/{name}")
        sizes = [",".join(map(str, value.shape)) for value in values]
        files = [f"{name}:{self.folder}/{name}" for name in names]
        return [
            f"--input_layer={','.join(names)}",
            f"--input_layer_shape={':'.join(sizes)}",
            f"--input_layer_value_files={','.join(files)}",
        ]

    def receive(self, name: str) -> bytes | None:
        """Copy a file from the folder.

        Args:
            name: The file's name.

        Returns:
            Its content; None if there is none.

        Raises:
            RuntimeError: If the phone is gone.
        """
        remote = f"{self.folder}/{name}"
        if self._phone.shell(f"[ -f {remote} ]").status:
            return None
        with tempfile.TemporaryDirectory() as folder:
            local = pathlib.Path(folder, name)
            self._phone.pull(remote, local)
            return local.read_bytes()

    def run(self, *flags: str) -> str:
        """Run the program on the file.

        Args:
            *flags: Its flags, apart from the one that names the file.

        Returns:
            What it printed.

        Raises:
            RuntimeError: If it fails, or the phone is gone.
        """
        arguments = shlex.join([f"--graph={self.folder}/model.tflite", *flags])
        # By its process number it is found if it is still running in the end.
        noted = (
            f"echo $$ > {self.folder}/run.pid; "
            f"exec {self._cores} {self._program} {arguments}"
        )
        # Later the number may be that of another process.
        forgotten = f"status=$?; rm -f {self.folder}/run.pid; exit $status"
        said = self._phone.shell(f"sh -c {shlex.quote(noted)}; {forgotten}")
        if not said.status:
            return said.text
        words = said.text.strip()[-1500:]
        if said.status in (126, 127):
            raise RuntimeError(f"The phone cannot start benchmark_model: {words}")
        # Above come those that programs choose themselves, as -1.
        is_signal = 128 < said.status < 128 + 65
        how = end(128 - said.status if is_signal else said.status)
        raise RuntimeError(f"benchmark_model {how}. Its last words:\n{words}")


@contextlib.contextmanager
def bench(
    phone: Phone, path: pathlib.Path, on_phone: str, cores: str = ""
) -> Iterator[Bench]:
    """Copy a file to a phone, for as long as the block lasts.

    Args:
        phone: The phone.
        path: The file.
        on_phone: Where on the phone the program is, unless it is on this machine.
        cores: What binds the program to cores.

    Yields:
        The file, ready to run.

    Raises:
        RuntimeError: If the phone is gone or does not take the file.
    """
    local = local_program()
    with phone.folder() as folder:
        program = on_phone
        if local is not None:
            program = f"{folder}/benchmark_model"
            phone.push(local, program)
            phone.shell(f"chmod 755 {program}")
        phone.push(path, f"{folder}/model.tflite")
        yield Bench(phone, folder, program, cores)
