"""The data of the demo and the benchmarks, as NumPy arrays, with where they come from.

    (x_train, y_train), (x_test, y_test), provenance = load("digits")

Images are float32 in [0, 1], shape (number, height, width, channels).
"""

from __future__ import annotations

import json
import os
import pathlib

import keras
import numpy as np

Split = tuple[np.ndarray, np.ndarray]

NAMES = ("digits", "mnist", "cifar10")


def load(name: str, download: bool = False) -> tuple[Split, Split, str]:
    """Loads one data set.

    `digits` comes with scikit-learn. `mnist` and `cifar10` are read by TensorFlow
    Datasets from the folder in `TFDS_DATA_DIR`, or its default folder.

    Args:
        name: One of `NAMES`.
        download: Whether TensorFlow Datasets may fetch what is not there.

    Returns:
        The training data, the test data, and a sentence on where they come from,
        which belongs beside each accuracy.
    """
    if name not in NAMES:
        raise ValueError(
            f"Unknown data set. Expected one of {', '.join(NAMES)}. Received: {name!r}"
        )
    return _digits() if name == "digits" else _tfds(name, download)


def _digits() -> tuple[Split, Split, str]:
    import sklearn
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = (digits.images[..., None] / 16).astype("float32")
    labels = digits.target.astype("int32")
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels, test_size=360, random_state=0, stratify=labels
    )
    provenance = (
        f"digits of scikit-learn {sklearn.__version__}: {len(images)} images of "
        f"8 x 8, {len(x_test)} of them held out for the test (random_state=0)"
    )
    return (x_train, y_train), (x_test, y_test), provenance


def _tfds(name: str, download: bool) -> tuple[Split, Split, str]:
    # Only reads files here; it shall not take the accelerator of another backend.
    import tensorflow as tf

    if keras.backend.backend() != "tensorflow":
        tf.config.set_visible_devices([], "GPU")
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=os.environ.get("TFDS_DATA_DIR"))
    if download:
        builder.download_and_prepare()
    elif not builder.is_prepared():
        raise FileNotFoundError(
            f"{name} {builder.version} is not in {builder.data_dir}. Set "
            f"TFDS_DATA_DIR to a folder that holds {name}/{builder.version} as "
            "TensorFlow Datasets prepares it, or allow the download "
            "(load(..., download=True); make demo ARGS=--download)."
        )
    train, test = (_decoded(builder, split) for split in ("train", "test"))
    return train, test, _provenance(builder)


def _decoded(builder, split: str) -> Split:
    info = builder.info.splits[split]
    shape = (info.num_examples, *builder.info.features["image"].shape)
    images = np.empty(shape, "float32")
    labels = np.empty(info.num_examples, "int32")
    print(f"Reading {builder.name}, {split}")
    bar = keras.utils.Progbar(info.num_examples)
    start = 0
    batches = builder.as_dataset(split=split, batch_size=1000, as_supervised=True)
    for x, y in batches.as_numpy_iterator():
        end = start + len(x)
        np.divide(x, 255, out=images[start:end])
        labels[start:end] = y
        bar.update(end)
        start = end
    return images, labels


def _provenance(builder) -> str:
    """Reads `<name>-provenance.json` beside the data: a copy is not the original."""
    text = f"{builder.name} {builder.version} of TensorFlow Datasets"
    data_dir = pathlib.Path(builder.data_dir).parent.parent
    note = data_dir / f"{builder.name}-provenance.json"
    if note.exists():
        told = json.loads(note.read_text())
        text += f", made from {told['source']}"
        if "commit" in told:
            text += f" at {told['commit'][:10]}"
    return text
