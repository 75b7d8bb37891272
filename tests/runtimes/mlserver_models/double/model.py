"""Doubles its input after `wait` seconds; loads for two."""

import asyncio

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Double(MLModel):
    async def load(self):
        await asyncio.sleep(2)
        return True

    async def predict(self, payload):
        inputs = {entry.name: NumpyCodec.decode_input(entry) for entry in payload.inputs}
        await asyncio.sleep(float(inputs["wait"][0]) if "wait" in inputs else 0.0)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", inputs["x"] * 2)])
