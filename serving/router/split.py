"""Who gets which arm.

A user stays in one arm for as long as the canary lasts: the arm is a hash of user and salt, and a larger share only
adds users.
"""

from __future__ import annotations

import hashlib
import logging
import threading

from configs.serving import Rollback
from serving.release import Release
from serving.release_state import CANARY, STABLE, Route, read_route
from serving.router.account import Account
from serving.router.metrics import RouterMetrics
from serving.server.status import ServingError

log = logging.getLogger("recsys-router")


def share(user: str, salt: str) -> float:
    """Where in [0, 100) a user falls, the same on every machine and every day."""
    digest = hashlib.blake2b(f"{salt}\0{user}".encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 * 100


def choose_arm(user: str | None, route: Route) -> str:
    """`stable` or `canary` for this user; who is not known stays with the stable version."""
    return CANARY if user is not None and share(user, route.salt) < route.canary_percent else STABLE


def canary_id(salt: str) -> str:
    """Names one start of a canary in logs that say nothing of its salt."""
    return hashlib.blake2b(salt.encode(), digest_size=8, person=b"canary").hexdigest()


class Split:
    """The split of one model's traffic as its release says, and the account of the canary under way."""

    def __init__(self, release: Release, conditions: Rollback, metrics: RouterMetrics | None = None):
        """Reads the release state; raises ServingError where the server's config file cannot be read.

        A split that cannot be read sends all traffic to the stable version until it can.
        """
        self.release = release
        self.conditions = conditions
        self.metrics = metrics or RouterMetrics()
        self.route = Route()
        self.labels = release.labels()
        self.account = Account(conditions)
        self._complaint = ""
        self._lock = threading.Lock()
        self.refresh()

    @property
    def model(self) -> str:
        """The model whose traffic is split."""
        return self.release.model

    @property
    def labelled(self) -> bool:
        """Whether the model has a stable version to name; not before the first promotion."""
        return STABLE in self.labels

    @property
    def canary(self) -> str:
        """Names the start of the canary under way."""
        return canary_id(self.route.salt)

    def refresh(self) -> None:
        """Take over what the release says now; what cannot be read leaves the last state in force.

        The account starts anew with every start of a canary.
        """
        with self._lock:
            self._refresh()

    def _refresh(self) -> None:
        try:
            route, labels = read_route(self.release.routes_file, self.model), self.release.labels()
        except (ServingError, OSError) as error:
            self.metrics.refused_states.add()
            if str(error) != self._complaint:
                self._complaint = str(error)
                log.error("the last split stays in force: %s", error)
            return
        if self._complaint:
            self._complaint = ""
            log.info("the split can be read again")
        if route.salt != self.route.salt and route.canary_percent + route.shadow_percent > 0:
            self.account = Account(self.conditions)
        self.route, self.labels = route, labels
