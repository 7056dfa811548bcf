"""Where a config's metadata store is."""

from __future__ import annotations

import os

from ml_metadata.proto import metadata_store_pb2

from configs import Config, ConfigError


def connection(config: Config) -> metadata_store_pb2.ConnectionConfig:
    """Return how to reach the metadata store. Raises ConfigError where the password's variable is not set."""
    there, found = config.metadata, metadata_store_pb2.ConnectionConfig()
    if there.type == "sqlite":
        found.sqlite.filename_uri = f"{config.runs_folder}/metadata.sqlite"
        found.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        return found
    password = ""
    if there.password_variable is not None:
        if there.password_variable not in os.environ:
            raise ConfigError(
                f"metadata.password_variable: {there.password_variable} is not set; put the password of "
                f"{there.user} in it, by a Secret where an orchestrator runs this"
            )
        password = os.environ[there.password_variable]
    if there.type == "mysql":
        found.mysql.database, found.mysql.user, found.mysql.password = there.database, there.user, password
        if there.socket is not None:
            found.mysql.socket = there.socket
        else:
            found.mysql.host, found.mysql.port = there.host, there.server_port
    else:
        found.postgresql.dbname, found.postgresql.user, found.postgresql.password = there.database, there.user, password
        found.postgresql.host, found.postgresql.port = there.host, str(there.server_port)
    return found


def store_exists(config: Config) -> bool:
    """Return False where no run can have left anything: a SQLite file that is not there yet."""
    return config.metadata.type != "sqlite" or os.path.exists(f"{config.runs_folder}/metadata.sqlite")
