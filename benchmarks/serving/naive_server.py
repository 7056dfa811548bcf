"""What one writes in an afternoon: gRPC's thread pool around the loaded signature. The benchmark's other side."""

from __future__ import annotations

import sys
from concurrent import futures

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


class NaiveServer(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, path: str):
        self._model = tf.saved_model.load(path)
        self._signature = self._model.signatures["serving_default"]

    def Predict(self, request, context):  # noqa: N802 - the stub's name
        inputs = {name: tf.constant(tf.make_ndarray(tensor)) for name, tensor in request.inputs.items()}
        outputs = self._signature(**inputs)
        response = predict_pb2.PredictResponse()
        response.model_spec.CopyFrom(request.model_spec)
        for name, tensor in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(tensor.numpy()))
        return response


def main(path: str, port: str) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(NaiveServer(path), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])
