"""Makes our layers known to Keras by name, so that it opens a .keras file that holds them.

Keras finds a class in a file once the class's module was imported. To import them all would cost
`import tfssl` its quickness, so a stand-in takes each one's place until it is asked for.
"""

import importlib
import importlib.util
import pathlib
import re
import sys

_REGISTERED = re.compile(
    r'^@keras\.saving\.register_keras_serializable\("tfssl"\)\nclass (\w+)', re.MULTILINE
)


class _StandIn:
    """What Keras holds for a class whose module was not imported yet; the module replaces it."""

    def __init__(self, module, name):
        self.module, self.name = module, name

    def from_config(self, config):
        return getattr(importlib.import_module(self.module), self.name).from_config(config)


class _WhenKerasComes:
    """Finds no module itself: notices that Keras is being imported, and speaks up behind it.

    It stays until then: many only ask whether Keras is there.
    """

    def __init__(self):
        self.asking = False

    def find_spec(self, name, path=None, target=None):
        if name != "keras" or self.asking:
            return None
        self.asking = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.asking = False
        if spec is not None:
            imported = spec.loader.exec_module

            def exec_module(module):
                imported(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                _tell()

            spec.loader.exec_module = exec_module
        return spec


def tell_keras():
    """Names every registered class of `tfssl` to Keras: now, or when somebody imports it."""
    if "keras" in sys.modules:
        _tell()
    else:  # importing it takes seconds, which `tfssl list` and a wrong option need not wait for
        sys.meta_path.insert(0, _WhenKerasComes())


def _tell():
    import keras

    known = keras.saving.get_custom_objects()
    for module, name in _classes():
        known.setdefault(f"tfssl>{name}", _StandIn(module, name))


def _classes():
    """(module, name) of every class that encoders and the models around them may be built of."""
    home = pathlib.Path(__file__).parent
    for path in (*home.glob("*.py"), *home.glob("encoders/*.py"), *home.glob("layers/*.py")):
        module = ".".join(("tfssl", *path.relative_to(home).with_suffix("").parts))
        for name in _REGISTERED.findall(path.read_text(encoding="utf-8")):
            yield module, name
