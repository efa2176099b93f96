"""GILL in miniature: a course, and the paper's tables from one command.

Importing the package is cheap: torch, transformers and diffusers are loaded by the first
name that needs them, so `gill_lite.Gill` works and `import gill_lite` stays fast.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOME_OF = {
    "GillError": "errors",
    "Profile": "profiles",
    "MINI": "profiles",
    "PAPER": "profiles",
    "get_profile": "profiles",
    "Gill": "model.gill",
    "GillConfig": "model.config",
    "load_backbones": "model.backbones",
    "load_joints": "model.checkpoint",
    "save_joints": "model.checkpoint",
    "load_responder": "answering.respond",
    "Conversation": "answering.conversation",
    "ShownPicture": "answering.answers",
}
if TYPE_CHECKING:  # what editors read, with types and docstrings
    from gill_lite.answering.answers import ShownPicture as ShownPicture
    from gill_lite.answering.conversation import Conversation as Conversation
    from gill_lite.answering.respond import load_responder as load_responder
    from gill_lite.errors import GillError as GillError
    from gill_lite.model.backbones import load_backbones as load_backbones
    from gill_lite.model.checkpoint import load_joints as load_joints
    from gill_lite.model.checkpoint import save_joints as save_joints
    from gill_lite.model.config import GillConfig as GillConfig
    from gill_lite.model.gill import Gill as Gill
    from gill_lite.profiles import MINI as MINI
    from gill_lite.profiles import PAPER as PAPER
    from gill_lite.profiles import Profile as Profile
    from gill_lite.profiles import get_profile as get_profile
__all__ = sorted([*_HOME_OF, "__version__"])


def __getattr__(name: str):
    """Import the module that holds `name` on first use, and remember the name."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'gill_lite' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"gill_lite.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
