"""What a phone reports about itself: what it is, its cores, its temperature."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from keras_tickets.runtime.android.adb import Phone

_PROPERTIES = {
    "maker": "ro.product.manufacturer",
    "model": "ro.product.model",
    "chip": "ro.soc.model",
    "board": "ro.board.platform",
    "android": "ro.build.version.release",
    "abis": "ro.product.cpu.abilist",
    "emulator": "ro.boot.qemu",
    "old emulator": "ro.kernel.qemu",
}

_FASTEST = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq"
_GOVERNORS = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"
_THERMALS = """for zone in /sys/class/thermal/thermal_zone*; do
    echo "zone $(cat $zone/temp) $(cat $zone/type)"
done 2>/dev/null
dumpsys thermalservice 2>/dev/null | grep -i 'thermal status'"""

# Android's words for what the thermal service says; from 1 on it slows things down.
_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")


@dataclasses.dataclass(frozen=True)
class Identity:
    """What a phone is.

    Args:
        name: Maker, model, chip, version of Android.
        abis: The kinds of programs that it runs, the best first.
        emulated: Whether it is Android's emulator and no phone.
    """

    name: str
    abis: tuple[str, ...]
    emulated: bool


def identity(phone: Phone) -> Identity:
    """Ask a phone what it is.

    Args:
        phone: The phone.

    Returns:
        What it reports.

    Raises:
        RuntimeError: If it is gone.
    """
    asked = [f'echo "{key}=$(getprop {name})"' for key, name in _PROPERTIES.items()]
    said = phone.shell("; ".join(asked)).text
    lines = (line.partition("=") for line in said.splitlines())
    return identified({key: value.strip() for key, _, value in lines})


def identified(properties: Mapping[str, str]) -> Identity:
    """Make a name of a phone's properties.

    Args:
        properties: What `getprop` printed, by the keys of `identity`; empty where it
            does not know.

    Returns:
        What the phone is.

    Example:
    >>> identified({"maker": "Google", "model": "Pixel 6", "board": "gs101",
    ...             "android": "14", "abis": "arm64-v8a,armeabi-v7a"}).name
    'Google Pixel 6, gs101, Android 14'
    """
    device = f"{properties.get('maker', '')} {properties.get('model', '')}".strip()
    # Only Android 12 and later report the chip.
    chip = properties.get("chip") or properties.get("board") or ""
    parts = (device or "a phone", chip, f"Android {properties.get('android') or '?'}")
    abis = [abi for abi in properties.get("abis", "").split(",") if abi]
    emulated = "1" in (properties.get("emulator"), properties.get("old emulator"))
    return Identity(", ".join(filter(None, parts)), tuple(abis), emulated)


@dataclasses.dataclass(frozen=True)
class Cores:
    """The cores that a run is bound to.

    Args:
        chosen: Their numbers; empty if the system chooses.
        note: What to say about it.
    """

    chosen: tuple[int, ...]
    note: str

    @property
    def prefix(self) -> str:
        """What binds a command to the chosen ones; nothing if the system chooses."""
        if not self.chosen:
            return ""
        return f"taskset {sum(1 << core for core in self.chosen):x}"


def cores(phone: Phone, threads: int) -> Cores:
    """Choose the fastest cores of a phone.

    Args:
        phone: The phone.
        threads: How many threads will run.

    Returns:
        The cores; those of equal speed are taken together.

    Raises:
        RuntimeError: If the phone is gone.
    """
    said = phone.shell(f'for file in {_FASTEST}; do echo "$file $(cat $file)"; done')
    speeds = {
        int(core): int(speed)
        for core, speed in re.findall(r"/cpu(\d+)/\S+ (\d+)$", said.text, re.M)
    }
    chosen = fastest(speeds, threads)
    if not chosen.chosen:
        return chosen
    tried = phone.shell(f"{chosen.prefix} true")
    if tried.status:
        return Cores((), f"not pinned: taskset fails: {tried.text.strip()[-200:]}")
    return chosen


def fastest(speeds: Mapping[int, int], threads: int) -> Cores:
    """Choose cores by their speed.

    Args:
        speeds: Core -> its highest frequency in kHz.
        threads: How many threads will run.

    Returns:
        Whole groups of equal speed, the fastest first, until each thread has a core.

    Example:
    >>> speeds = {0: 1800000, 1: 1800000, 2: 2420000, 3: 2840000}
    >>> fastest(speeds, threads=2)
    Cores(chosen=(2, 3), note='pinned to 2, 3 of 4, up to 2.84 GHz')
    """
    if not speeds:
        return Cores((), "not pinned: the phone does not report how fast its cores are")
    chosen: list[int] = []
    for speed in sorted(set(speeds.values()), reverse=True):
        if len(chosen) < threads:
            chosen += [core for core, own in speeds.items() if own == speed]
    names = ", ".join(map(str, sorted(chosen)))
    top = max(speeds.values()) / 1e6
    note = f"pinned to {names} of {len(speeds)}, up to {top:.2f} GHz"
    return Cores(tuple(sorted(chosen)), note)


def governor(phone: Phone) -> str:
    """Ask a phone by which rules its cores choose their speed.

    Args:
        phone: The phone.

    Returns:
        The rules, such as `"schedutil"`; of each kind of core, where they differ.

    Raises:
        RuntimeError: If it is gone.
    """
    said = phone.shell(f"cat {_GOVERNORS} 2>/dev/null").text
    return ", ".join(sorted({*said.split()})) or "not reported"


def temperature(phone: Phone) -> str:
    """Ask a phone for its temperature.

    Args:
        phone: The phone.

    Returns:
        What `warmest` makes of it.

    Raises:
        RuntimeError: If it is gone.
    """
    return warmest(phone.shell(_THERMALS).text)


def warmest(text: str) -> str:
    r"""Find the warmest sensor, and whether Android slows things down.

    Args:
        text: Lines `zone 41200 cpu-1-7`, in thousandths of a degree or in degrees, and
            of Android's thermal service.

    Returns:
        A few words.

    Example:
    >>> warmest("zone 41200 cpu-1-7\nzone 31000 battery\nThermal Status: 0")
    '41.2 °C (cpu-1-7), throttling: none'
    """
    zones = [
        (float(value) / (1000 if abs(int(value)) >= 1000 else 1), kind.strip())
        for value, kind in re.findall(r"^zone (-?\d+) (.*)$", text, re.M)
    ]
    # Sensors that are switched off say nonsense.
    sane = [zone for zone in zones if 0 < zone[0] < 150]
    parts = ["{:.1f} °C ({})".format(*max(sane))] if sane else []
    if status := re.search(r"thermal status:\s*(\d)", text, re.I):
        parts.append(f"throttling: {_STATUS[min(int(status[1]), len(_STATUS) - 1)]}")
    return ", ".join(parts) or "not reported"
