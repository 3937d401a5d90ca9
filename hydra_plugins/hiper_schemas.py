"""Registers the config schemas wherever Hydra starts.

Hydra imports every module of `hydra_plugins` when it sets itself up, also in the processes of other tools: `dvc exp run`
composes `conf/` without ever importing `hiper`, and finds the schemas because this module was read.
"""

from hiper.composition.compose import register_schemas

register_schemas()
