"""Streams as many words as it is asked for, one every 0.1 s."""

import asyncio

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceResponse


class Words(MLModel):
    async def predict_stream(self, payloads):
        async for payload in payloads:
            count = int(payload.inputs[0].data[0])
            for number in range(count):
                await asyncio.sleep(0.1)
                yield InferenceResponse(
                    model_name=self.name, outputs=[StringCodec.encode_output("text", [f"word{number}"])]
                )
