"""Libraries of the system that some environments need, and the packages of Debian and Ubuntu that bring them."""

import ctypes
from collections.abc import Sequence

FILES: dict[str, tuple[tuple[str, ...], ...]] = {
    "EGL": (("libEGL.so.1",), ("libOpenGL.so.0", "libGL.so.1")),
    "OSMesa": (("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"),),
    "Qt5": (("libQt5Core.so.5",), ("libQt5Gui.so.5",)),
}
"""Each of the groups is needed, any file of a group will do."""
PACKAGES = {
    "EGL": "libegl1 libegl-mesa0 libgl1-mesa-dri libopengl0",
    "OSMesa": "libosmesa6",
    "Qt5": "libqt5core5a libqt5gui5",
}
USE = {
    "EGL": "pictures of DeepMind Control",
    "OSMesa": "the same without EGL, gl=osmesa",
    "Qt5": "Procgen",
}


def is_there(library: str) -> bool:
    """Whether the system can load it."""
    return all(any(map(_loads, group)) for group in FILES[library])


def remedy(libraries: Sequence[str]) -> str:
    """The command that installs one of them."""
    return " or ".join(f"apt-get install --no-install-recommends {PACKAGES[name]}" for name in libraries)


def _loads(file: str) -> bool:
    try:
        ctypes.CDLL(file)
    except OSError:
        return False
    return True
