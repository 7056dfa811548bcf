"""Where pushed versions go, what they must prove before, and when a release is taken back."""

from __future__ import annotations

from pydantic import Field, field_validator

from configs.base import Section, Share, check_mounted

RELEASE_FOLDER = "release"


class ServingCheck(Section):
    """What a candidate must do in a fresh server process before it is pushed."""

    rows: int = Field(default=64, ge=1, le=1000, description="Test rows asked for over gRPC and REST.")
    tolerance: float = Field(default=1e-4, gt=0, description="Largest difference from the evaluated score.")
    p50_ms: float = Field(default=100.0, gt=0, description="Largest median latency of a request of one row.")
    resident_mib: float = Field(default=4096.0, gt=0, description="Largest resident memory of the server in MiB.")


class Rollback(Section):
    """When a running canary is taken back without asking anyone."""

    min_requests: int = Field(default=200, ge=1, description="Requests an arm must have had before it is judged.")
    max_false_alarm: Share = Field(
        default=0.01,
        description="Chance, in 14 days of looks, that errors, latency and scores together roll back a canary that "
        "keeps its limits.",
    )
    max_error_rate: Share = Field(default=0.01, description="Largest share of the canary's requests that may fail.")
    max_p99_ratio: float = Field(default=2.0, gt=0, description="Largest p99 latency, as a multiple of stable's.")
    max_score_shift: float | None = Field(
        default=None, gt=0, description="Largest difference of the arms' mean scores; null: any."
    )
    max_ctr_p_value: Share = Field(
        default=0.01,
        description="A lower click-through rate than stable's counts from this sequential p-value on, which is the "
        "chance of a false rollback for clicks however often one looks.",
    )
    check_seconds: float = Field(default=5.0, gt=0, description="Time between two looks.")


class Serving(Section):
    """Where pushed versions go and how they are released."""

    model: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", description="Model name; default: the config's."
    )
    folder: str = Field(default="../served", description="Folder of models; a version is FOLDER/MODEL/VERSION.")
    release: str | None = Field(
        default=None,
        description="Folder of models.config and the rest of the release state. Default: FOLDER/release.",
    )
    server: str | None = Field(
        default=None,
        description="host:port of the gRPC server that is told of a release at once; null: servers poll models.config.",
    )
    warmup_requests: int = Field(default=8, ge=0, le=1000, description="Recorded requests replayed at load.")
    check: ServingCheck = ServingCheck()
    rollback: Rollback = Rollback()

    @field_validator("folder", "release")
    @classmethod
    def _mounted(cls, value: str | None) -> str | None:
        return None if value is None else check_mounted(value)
