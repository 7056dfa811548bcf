"""Every kind of feature in TensorFlow, by its name: each module here is one, and has its `KIND`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping

from transforms.kind import Kind

KINDS: Mapping[str, Kind] = {
    module.name: importlib.import_module(f"{__name__}.{module.name}").KIND for module in pkgutil.iter_modules(__path__)
}
