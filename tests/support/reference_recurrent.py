"""LSTM, GRU and RNN for onnx's reference evaluator, in full: verify's own, held against onnxruntime and torch."""

from __future__ import annotations

from onnx.reference.op_run import OpRun

from onnx_gradcam.verify.recurrent import recurrent


class _Recurrent(OpRun):
    op_domain = ""

    def _run(self, *inputs, **attributes):  # type: ignore[no-untyped-def]
        given = {k: v for k, v in attributes.items() if v is not None}
        arrays = recurrent(type(self).__name__, given, inputs)
        return tuple(a.astype(inputs[0].dtype) for a in arrays[: len(self.onnx_node.output)])


class LSTM(_Recurrent):
    pass


class GRU(_Recurrent):
    pass


class RNN(_Recurrent):
    pass


RECURRENT_OPS = (LSTM, GRU, RNN)
