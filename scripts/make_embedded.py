"""Make the pictures inside the package, src/spikeback/data/embedded/fashion-mnist.npz, from the four original files.

    python scripts/make_embedded.py [FOLDER WITH THE FOUR IDX FILES]

Takes the first 600 training and 100 test pictures of every class, in the official order, and prints its sha256.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
import torch

from spikeback.data.fashion_mnist import DEBIAN, FILES, find_files, read_bytes, read_idx

TARGET = Path(__file__).parents[1] / "src/spikeback/data/embedded/fashion-mnist.npz"
SHA256 = {  # of the unpacked files: the archives differ from mirror to mirror
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def first_of_each_class(images: torch.Tensor, labels: torch.Tensor, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The first n pictures and labels of every class, in their original order."""
    chosen = torch.cat([(labels == label).nonzero().flatten()[:n] for label in labels.unique()]).sort().values
    return images[chosen].numpy(), labels[chosen].numpy()


def write(path: Path, **arrays: np.ndarray) -> str:
    """Write the arrays and return the file's sha256. NumPy stamps no time into it: equal arrays, equal bytes."""
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DEBIAN
    files = find_files(folder)
    if files is None:
        sys.exit(f"{folder} lacks one of {', '.join(FILES)}")
    for path in files:
        if hashlib.sha256(read_bytes(path)).hexdigest() != SHA256[path.name.removesuffix(".gz")]:
            sys.exit(f"{path} is not the original file: its sha256 differs")
    train_images, train_labels = first_of_each_class(read_idx(files[0]), read_idx(files[1]), 600)
    test_images, test_labels = first_of_each_class(read_idx(files[2]), read_idx(files[3]), 100)
    arrays = {"train_images": train_images, "train_labels": train_labels}
    digest = write(TARGET, **arrays, test_images=test_images, test_labels=test_labels)
    print(f"{digest}  {TARGET.name}, {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
