"""Trains a ticket with `BackupAndRestore`; killed in one process, resumed in another.

Usage: killed.py BACKUP_DIR RESULT.npz PRUNER [--die-in-epoch N]
"""

from __future__ import annotations

import argparse
import os

import keras
import numpy as np
import zoo

import keras_tickets as kt

parser = argparse.ArgumentParser()
parser.add_argument("backup")
parser.add_argument("result")
parser.add_argument("pruner")
parser.add_argument("--die-in-epoch", type=int, default=-1)
args = parser.parse_args()


class Die(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == args.die_in_epoch and batch == 2:
            os._exit(7)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch


pruner = {
    "gradual": lambda: kt.GradualMagnitude(0.8),
    "random": lambda: kt.Random(0.8, seed=3),
    "snfs": lambda: kt.SNFS(0.8, update_every=3, seed=3),
    "gem_miner": lambda: kt.GemMiner(0.8, every=1, until=0.7, seed=3),
    "imp": lambda: kt.IMP(0.5, fraction=0.3, rewind_to=1),
}[args.pruner]()
ticket = kt.wrap(zoo.build("functional"), pruner)
decay = keras.optimizers.schedules.CosineDecay(1e-2, 24)
zoo.compile_for("functional", ticket, keras.optimizers.Adam(decay))
zoo.train(
    "functional",
    ticket,
    epochs=6,
    callbacks=[keras.callbacks.BackupAndRestore(args.backup), Die()],
)
state = [v.numpy() for v in [*ticket.variables, *ticket.optimizer.variables]]
np.savez(args.result, *state)
