"""LSTM, GRU and RNN in full: those of ``verify``, which are held against onnxruntime, torch and onnx's test cases."""

from __future__ import annotations

from onnx.reference.op_run import OpRun

from onnx_gradcam.verify.recurrent import recurrent


class _Recurrent(OpRun):
    op_domain = ""

    def _run(self, *inputs, **attributes):  # type: ignore[no-untyped-def]
        present = {k: v for k, v in attributes.items() if v is not None}
        arrays = recurrent(type(self).__name__, present, inputs)
        return tuple(a.astype(inputs[0].dtype) for a in arrays[: len(self.onnx_node.output)])


class LSTM(_Recurrent):
    pass


class GRU(_Recurrent):
    pass


class RNN(_Recurrent):
    pass


OPERATORS = (LSTM, GRU, RNN)
