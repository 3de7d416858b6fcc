"""Names for what type checkers can't see into."""

from typing import Any, TypeAlias

# A timm model or a part of one: nn.Module hides the attributes of its subclasses from type checkers.
TimmModule: TypeAlias = Any
