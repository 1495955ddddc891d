"""The entry point of verl's group `verl.plugins`: registers the estimators and says so.

`import verl` loads it where this package is installed, and hides what goes wrong; hence the line in the log either way.
`VERL_USE_EXTERNAL_MODULES=riskpo_study.integrations.verl_plugin` loads it too, and fails loudly.
"""

from __future__ import annotations

import logging

_log = logging.getLogger(__name__)
_log.setLevel(logging.INFO)  # verl shows warnings only, unless told otherwise

try:
    from riskpo_study.integrations import verl_estimators
except Exception as error:
    _log.error("riskpo_study: no advantage estimators for verl, for they cannot be loaded: %r", error)
    raise
_log.info("riskpo_study: advantage estimators for verl: %s", ", ".join(verl_estimators.register()))
