"""The three programs in torch: eager, Adam fused, cross-entropy on logits."""

import numpy as np


class TorchProgram:
    """One program; weights come from ours, in our layout and gate order."""

    name = "torch"

    def __init__(self, program: str, weights, batches):
        import torch
        from torch import nn

        self.torch, self.program = torch, program
        self.model = _MODELS[program](nn)
        self.load(weights)
        self.batches = [(torch.from_numpy(_input(program, x)), torch.from_numpy(y.argmax(-1))) for x, y in batches]
        self.optimizer = torch.optim.Adam(self.model.parameters(), fused=True, eps=1e-7)
        self.loss = nn.CrossEntropyLoss()

    def load(self, weights):
        tensors = [self.torch.from_numpy(array) for array in _weights(self.program, weights)]
        with self.torch.no_grad():
            for parameter, tensor in zip(self.model.parameters(), tensors, strict=True):
                parameter.copy_(tensor)

    def epoch(self):
        for x, labels in self.batches:
            self.optimizer.zero_grad(set_to_none=True)
            logits = self.model(x)
            self.loss(logits.reshape(-1, 10), labels.reshape(-1)).backward()
            self.optimizer.step()

    def predict(self):
        with self.torch.inference_mode():
            return self.torch.softmax(self.model(self.batches[0][0]), -1).numpy()


def _dense(nn):
    return nn.Sequential(nn.Linear(100, 64), nn.ReLU(), nn.Linear(64, 10))


def _cnn(nn):
    features = nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
    return nn.Sequential(*features, nn.Linear(5408, 128), nn.ReLU(), nn.Linear(128, 10))


def _lstm(nn):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(100, 64, batch_first=True)
            self.head = nn.Linear(64, 10)

        def forward(self, x):
            return self.head(self.lstm(x)[0])

    return Network()


_MODELS = {"dense": _dense, "cnn": _cnn, "lstm": _lstm}


def _input(program, x):
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if program == "cnn" else x


def _weights(program, weights):
    """Our weights (K, N), (KH, KW, C, F), gates i f c o, as torch has them: transposed, gates i f g o, two biases."""
    if program == "dense":
        return [np.ascontiguousarray(w.T) for w in weights]
    if program == "cnn":
        kernel, bias, w1, b1, w2, b2 = weights
        w1 = w1.reshape(13, 13, 32, 128).transpose(3, 2, 0, 1).reshape(128, 5408)
        return [np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)), bias, np.ascontiguousarray(w1), b1, w2.T.copy(), b2]
    w, u, b, w1, b1 = weights
    return [w.T.copy(), u.T.copy(), b, np.zeros_like(b), w1.T.copy(), b1]
