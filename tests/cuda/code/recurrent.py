"""The kernels of the LSTM whose machine code is read."""

from handloom.kernels.recurrent.cuda import fused, stepwise

KERNELS = {
    "recurrent-gates-forward": lambda T: stepwise.gates_forward(T),
    "recurrent-gates-backward": lambda T: stepwise.gates_backward(T),
    "recurrent-fused-forward": lambda T: fused.fused_forward(T),
    "recurrent-fused-backward": lambda T: fused.fused_backward(T),
}
