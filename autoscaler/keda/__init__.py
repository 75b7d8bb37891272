"""KEDA's external scaler: what advised pools want, as gRPC. The one door to `grpcio` and `protobuf`."""
