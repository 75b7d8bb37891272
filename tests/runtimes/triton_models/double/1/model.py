"""Doubles its input after `wait` seconds. One at a time, so that requests queue."""

import time

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb.get_input_tensor_by_name(request, "x").as_numpy()
            wait = pb.get_input_tensor_by_name(request, "wait")
            time.sleep(float(wait.as_numpy().ravel()[0]) if wait is not None else 0.0)
            answers.append(pb.InferenceResponse([pb.Tensor("y", (x * 2).astype(np.float32))]))
        return answers
