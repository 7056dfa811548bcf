"""Asks a model: over gRPC or REST, sync or async, or a SavedModel in this process, all with one interface.

    from serving.client import connect

    with connect("grpc://localhost:8500", "movielens") as client:
        client.predict([{"user_id": "1", "item_id": "7"}]).outputs["score"]
        client.rank({"user_id": "1"}, [{"item_id": "7"}, {"item_id": "9"}])  # one score an item

It works the same against TensorFlow Serving. Features are rows (list of dicts) or columns (dict of lists or arrays);
element types come from the model's signature, asked for once. Every call has a deadline. Only what cannot have changed
anything is tried again: these calls only read, and of their failures only UNAVAILABLE says that the server did not work
on the request; an overloaded server (RESOURCE_EXHAUSTED) is left alone.
"""

from serving.client.clients import AsyncClient, Client, connect, connect_async
from serving.client.columns import as_columns
from serving.client.in_process import SavedModelClient
from serving.client.messages import Features, Prediction, VersionStatus

__all__ = [
    "AsyncClient",
    "Client",
    "Features",
    "Prediction",
    "SavedModelClient",
    "VersionStatus",
    "as_columns",
    "connect",
    "connect_async",
]
