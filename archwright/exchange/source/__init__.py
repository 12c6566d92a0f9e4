"""A net as readable PyTorch source: plan the classes, order the calls, write the text."""

from archwright.exchange.source.writer import SourceFile, source_text, to_source

__all__ = ["SourceFile", "source_text", "to_source"]
