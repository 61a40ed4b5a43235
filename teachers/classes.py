"""AudioSet's class list, for code that knows it by this name; the list itself is the ground's."""

from logitstore.classes import AudioSetClass, audioset

__all__ = ["AudioSetClass", "audioset"]
