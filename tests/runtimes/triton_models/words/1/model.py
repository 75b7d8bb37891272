"""Streams `count` words, one every 0.1 s; loads for two seconds."""

import time

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        time.sleep(2)

    def execute(self, requests):
        for request in requests:
            count = int(pb.get_input_tensor_by_name(request, "count").as_numpy().ravel()[0])
            sender = request.get_response_sender()
            for number in range(count):
                word = np.array([f"word{number} ".encode()], dtype=np.object_)
                sender.send(pb.InferenceResponse([pb.Tensor("text", word)]))
                time.sleep(0.1)
            sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
