"""DVC: versioned runs. It is called as a command, never imported.

`python -m hiper.integrations.dvc` writes the checkout's dvc.yaml anew, from the table of the stages.
"""

from hiper.integrations.dvc.versions import LOCK, PARAMS, ModelVersion, dvc_command, dvc_environment, fetch, models, versioned_settings

__all__ = ["LOCK", "PARAMS", "ModelVersion", "dvc_command", "dvc_environment", "fetch", "models", "versioned_settings"]
