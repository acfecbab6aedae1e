"""The processing types of PicWish's endpoint and their prices."""

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType


class TaskType(IntEnum):
    """The value of ``type`` in a request (API document, "Body Parameters")."""

    ULTRA_HD = 0
    HD = 1


#: Credits that PicWish charges for an image, by ``type`` (API document, guideline 4).
PRICES: Mapping[int, int] = MappingProxyType({TaskType.ULTRA_HD: 5, TaskType.HD: 4})
