"""Make the images inside the package, src/spikeback/data/embedded/fashion-mnist.npz, from the four original files.

    python scripts/make_embedded.py [FOLDER WITH THE FOUR IDX FILES]

Takes the first 600 training and 100 test images of every class, in the official order, and prints its sha256.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
import torch

from spikeback.data.sets.fashion_mnist import DEBIAN, FILES, find_files, read_published
from spikeback.errors import UsageError
from spikeback.files import as_path

TARGET = Path(__file__).parents[1] / "src/spikeback/data/embedded/fashion-mnist.npz"


def first_of_each_class(images: torch.Tensor, labels: torch.Tensor, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The first n images and labels of every class, in their original order."""
    chosen = torch.cat([(labels == label).nonzero().flatten()[:n] for label in labels.unique()]).sort().values
    return images[chosen].numpy(), labels[chosen].numpy()


def write(path: Path, **arrays: np.ndarray) -> str:
    """Write the arrays and return the file's sha256. NumPy stamps no time into it: equal arrays, equal bytes."""
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    folder = as_path(sys.argv[1]) if len(sys.argv) > 1 else DEBIAN
    files = find_files(folder)
    if files is None:
        sys.exit(f"{folder} lacks one of {', '.join(FILES)}")
    try:
        train_images, train_labels, test_images, test_labels = map(read_published, files)
    except UsageError as error:
        sys.exit(str(error))
    first, later = (
        first_of_each_class(train_images, train_labels, 600),
        first_of_each_class(test_images, test_labels, 100),
    )
    arrays = {"train_images": first[0], "train_labels": first[1]}
    digest = write(TARGET, **arrays, test_images=later[0], test_labels=later[1])
    print(f"{digest}  {TARGET.name}, {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
