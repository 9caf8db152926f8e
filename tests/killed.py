"""Trains tickets with `BackupAndRestore`; killed in one process, resumed in another.

Usage: killed.py BACKUPS RESULTS PRUNER... [--die-in-epoch N]

What becomes of each pruner is in the folder RESULTS, in a file of its name.
"""

from __future__ import annotations

import argparse
import os
import pathlib

import keras
import numpy as np
import zoo

import keras_tickets as kt

parser = argparse.ArgumentParser()
parser.add_argument("backups", type=pathlib.Path)
parser.add_argument("results", type=pathlib.Path)
parser.add_argument("pruners", nargs="+")
parser.add_argument("--die-in-epoch", type=int, default=-1)
args = parser.parse_args()


class Die(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == args.die_in_epoch and batch == 2:
            os._exit(7)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch


PRUNERS = {
    "gradual": lambda: kt.GradualMagnitude(0.8),
    "random": lambda: kt.Random(0.8, seed=3),
    "snfs": lambda: kt.SNFS(0.8, update_every=3, seed=3),
    "gem_miner": lambda: kt.GemMiner(0.8, every=1, until=0.7, seed=3),
    "imp": lambda: kt.IMP(0.5, fraction=0.3, rewind_to=1),
}


def train(name: str) -> None:
    keras.utils.clear_session(free_memory=False)
    ticket = kt.wrap(zoo.build("functional"), PRUNERS[name]())
    decay = keras.optimizers.schedules.CosineDecay(1e-2, 24)
    zoo.compile_for("functional", ticket, keras.optimizers.Adam(decay), **zoo.COMPILED)
    backup = keras.callbacks.BackupAndRestore(str(args.backups / name))
    zoo.train("functional", ticket, epochs=6, callbacks=[backup, Die()])
    state = [v.numpy() for v in [*ticket.variables, *ticket.optimizer.variables]]
    np.savez(args.results / f"{name}.npz", *state)


args.results.mkdir(parents=True)
for name in args.pruners:
    train(name)
