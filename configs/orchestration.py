"""Where metadata is kept, and how an orchestrator runs the nodes."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from configs.base import Section

# Quantities as Kubernetes writes them: 500m, 2, 8Gi.
_Cpu = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?m?$", coerce_numbers_to_str=True)]
_Memory = Annotated[str, Field(pattern=r"^[0-9]+(Ki|Mi|Gi|Ti|M|G|T)?$", coerce_numbers_to_str=True)]
_Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=253)]
_Variable = Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")]

_PORTS = {"mysql": 3306, "postgresql": 5432}


class Metadata(Section):
    """Where the metadata store is. A database server lets nodes run at the same time, and on several machines."""

    type: Literal["sqlite", "mysql", "postgresql"] = Field(
        default="sqlite",
        description="`sqlite`: a file in the runs folder, one node at a time. `mysql` (MariaDB too) and `postgresql`: "
        "a server.",
    )
    host: str | None = Field(default=None, description="The server's name or address.")
    port: int | None = Field(default=None, ge=1, le=65535, description="Default: 3306 or 5432.")
    socket: str | None = Field(default=None, description="MySQL only: a Unix socket, instead of host and port.")
    database: str | None = Field(default=None, description="Name of the database. MySQL's is made where it is missing.")
    user: str | None = Field(default=None, description="User name.")
    password_variable: _Variable | None = Field(
        default=None, description="Environment variable that holds the password, which never stands in a file."
    )

    @model_validator(mode="after")
    def _reachable(self) -> Metadata:
        given = [k for k in ("host", "port", "socket", "database", "user", "password_variable") if getattr(self, k)]
        if self.type == "sqlite":
            if given:
                raise ValueError(f"{given[0]} only goes with type: mysql or postgresql")
            return self
        if self.database is None or self.user is None:
            raise ValueError(f"type: {self.type} needs database and user")
        if self.socket is not None and self.type != "mysql":
            raise ValueError("socket only goes with type: mysql; PostgreSQL takes the socket's folder as host")
        if (self.host is None) == (self.socket is None):
            raise ValueError(f"type: {self.type} needs a host{', or a socket' if self.type == 'mysql' else ''}")
        return self

    @property
    def server_port(self) -> int:
        """The port, or the database's usual one."""
        return self.port or _PORTS[self.type]


class Resources(Section):
    """What a node's container asks for and is held to."""

    cpu: _Cpu = Field(default="1", description="Cores: `2`, `500m`.")
    memory: _Memory = Field(default="4Gi", description="Memory: `8Gi`.")
    gpus: int = Field(default=0, ge=0, description="NVIDIA GPUs.")


class Volume(Section):
    """A claim that every container mounts; a bucket is mounted through its CSI driver's claim."""

    claim: _Name = Field(description="Name of the PersistentVolumeClaim.")
    mount: str = Field(pattern=r"^/", description="Folder it is mounted at.")


class SecretKey(Section):
    """A value kept in a Kubernetes Secret."""

    secret: _Name = Field(description="Name of the Secret.")
    key: str = Field(min_length=1, description="Key in it.")


class Orchestration(Section):
    """How Airflow and Kubeflow Pipelines run this config, one task a node."""

    schedule: str | None = Field(
        default=None, description="Cron expression in UTC, such as `0 3 * * *`; default: only when asked."
    )
    start: date = Field(default=date(2026, 1, 1), description="First day that a schedule covers.")
    catch_up: bool = Field(default=False, description="Run the days between `start` and today that were not run.")
    runs_at_once: int = Field(default=1, ge=1, description="Runs under way at the same time.")
    nodes_at_once: int = Field(default=1, ge=1, description="Nodes under way at the same time.")
    retries: int = Field(default=2, ge=0, description="Times a node that broke is run again; a gate's no never is.")
    retry_after: int = Field(default=60, ge=0, description="Seconds before a node that broke is run again.")
    timeout: int = Field(default=14400, ge=1, description="Seconds after which a node is stopped.")
    runs_nodes_as: Literal["process", "pod"] = Field(
        default="process", description="Airflow: a process beside the worker, or a Kubernetes pod of `image`."
    )
    image: str = Field(default="tfx-recsys:latest", min_length=1, description="Image of deploy/pipeline.Dockerfile.")
    namespace: _Name = Field(default="default", description="Kubernetes namespace of Airflow's pods.")
    config: str | None = Field(
        default=None,
        pattern=r"^/",
        description="Path of this file inside the containers; default: /home/recsys/work/configs/FILE.",
    )
    volumes: list[Volume] = Field(default=[], description="Claims that every container mounts.")
    secrets: dict[_Variable, SecretKey] = Field(
        default={}, description="Environment variables of the containers, by reference to Secrets."
    )
    resources: Resources = Resources()
    nodes: dict[str, Resources] = Field(default={}, description="Nodes with resources of their own.")
    report_url: str | None = Field(
        default="http://127.0.0.1:8600/runs/{run}",
        pattern=r"^https?://",
        description="Where reports are served, which Airflow's tasks link to; `{run}` and `{node}` are filled in. "
        "Default: `recsys ui` on the same machine.",
    )

    @field_validator("schedule")
    @classmethod
    def _cron(cls, value: str | None) -> str | None:
        if value is not None and len(value.split()) != 5:
            raise ValueError("expected five fields of cron, as in '0 3 * * *', or nothing")
        return value
