"""GILL in miniature: a course, and the paper's tables from one command.

Importing the package is cheap: torch, transformers and diffusers are loaded by the first
name that needs them, so `gill_lite.Gill` works and `import gill_lite` stays fast.
"""

import importlib

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
