"""The datasets that come with the library. A new one is a file in this folder, and a line here."""

from spikeback.data.sets.cifar import CIFAR10, CIFAR100
from spikeback.data.sets.cifar10_dvs import CIFAR10DVS
from spikeback.data.sets.dvs128_gesture import DVS128Gesture
from spikeback.data.sets.embedded import Embedded
from spikeback.data.sets.fashion_mnist import FashionMNIST
from spikeback.data.sets.folder import Folder
from spikeback.data.sets.imagenet import ImageNet
from spikeback.data.sets.nmnist import NMNISTSource
from spikeback.data.sets.recordings import OwnRecordings
from spikeback.data.sets.simulated_dvs import SimulatedDVS
from spikeback.data.sets.source import register
from spikeback.data.sets.tonic import Tonic

BUILT_IN = (
    Embedded,
    FashionMNIST,
    Folder,
    CIFAR10,
    CIFAR100,
    ImageNet,
    OwnRecordings,
    CIFAR10DVS,
    NMNISTSource,
    DVS128Gesture,
    SimulatedDVS,
    Tonic,
)  # in the order in which messages name them

for _source in BUILT_IN:
    register(_source())
