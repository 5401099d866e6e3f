"""What `--notify` does: check whom to tell, hand it on to children, make who tells."""

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from cubeopt import settings
from cubeopt.settings import Receiver

if TYPE_CHECKING:
    from cubeopt.db.engine import Engine
    from cubeopt.service.herald import Herald

logger = logging.getLogger(__name__)


def pass_on(notify: str | None) -> None:
    """Have the coordinator that this worker may host notify; not by its words, which others see."""
    settings.receiver(notify)
    if notify is not None:
        os.environ["CUBEOPT_NOTIFY_URL"] = notify


def herald(engine: "Engine", receiver: Receiver | None) -> "Callable[[], Herald] | None":
    """What makes the one who tells *receiver*; None when there is nobody to tell."""
    if receiver is None:
        return None
    from cubeopt.report import champion
    from cubeopt.service.herald import Herald

    logger.info("telling %s what happens", receiver.shown)
    return lambda: Herald(engine, receiver, champion.standing)
