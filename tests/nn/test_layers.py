"""Each layer against its formula in NumPy."""

import re
from fractions import Fraction

import numpy as np
import pytest

from handloom import kernels, nn
from handloom.nn import Tensor, initializers

RNG = np.random.default_rng(4)


def draw(*shape):
    return RNG.standard_normal(shape)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def randomised(layer, x):
    """The layer built for `x`, with random numbers in all its parameters: a bias of zeros hides a missing bias."""
    layer(x)
    layer.set_weights([draw(*weight.shape) for weight in layer.weights])
    return layer


F64 = {"dtype": "float64"}


class TestDense:
    @pytest.mark.parametrize(
        ("activation", "formula"),
        [
            (None, lambda z: z),
            ("linear", lambda z: z),
            ("relu", lambda z: np.maximum(z, 0)),
            ("tanh", np.tanh),
            ("sigmoid", sigmoid),
            ("softmax", softmax),
            ("softplus", lambda z: np.log1p(np.exp(z))),
            (lambda z: z * z + 1, lambda z: z * z + 1),
        ],
    )
    @pytest.mark.parametrize("shape", [(3, 5), (2, 4, 5)])
    def test_formula(self, activation, formula, shape):
        x = draw(*shape)
        layer = randomised(nn.Dense(4, activation=activation, **F64), x)
        kernel, bias = layer.get_weights()
        np.testing.assert_allclose(layer(x).data, formula(x @ kernel + bias), rtol=1e-12)

    def test_without_bias(self):
        x = draw(3, 5)
        layer = randomised(nn.Dense(4, use_bias=False, **F64), x)
        (kernel,) = layer.get_weights()
        np.testing.assert_allclose(layer(x).data, x @ kernel, rtol=1e-12)

    def test_first_values(self):
        layer = nn.Dense(200, input_dim=100)
        layer(np.zeros((1, 100)))
        kernel, bias = layer.get_weights()
        limit = np.sqrt(6 / 300)
        assert 0.98 * limit < np.abs(kernel).max() <= limit
        assert not bias.any()

    def test_initializers(self):
        layer = nn.Dense(2, kernel_initializer="ones", bias_initializer=initializers.Constant(3.0))
        assert layer(np.ones((1, 4))).data.tolist() == [[7, 7]]

    def test_gradients_reach_the_parameters_and_the_input_alone_if_it_asks(self):
        x = Tensor(draw(3, 5), requires_grad=True)
        layer = nn.Dense(4, activation="relu", **F64)
        layer(x).sum().backward()
        assert [weight.grad.shape for weight in layer.weights] == [(5, 4), (4,)]
        assert x.grad.shape == (3, 5)

    def test_a_first_layer_computes_no_dx(self, monkeypatch):
        asked = []

        def spy(dy, saved, needs=None):
            asked.append(needs)
            return kernels.dense_backward(dy, saved, needs)

        monkeypatch.setattr(nn.functions.dense, "backward", spy)
        nn.Sequential([nn.Dense(4), nn.Dense(4)])(draw(2, 3)).sum().backward()
        assert asked == [(True, True, True), (False, True, True)]

    def test_variants(self):
        x = draw(3, 5)
        layer = randomised(nn.Dense(4, variant="naive", **F64), x)
        np.testing.assert_allclose(layer(x).data, x @ layer.kernel.data + layer.bias.data, rtol=1e-12)
        with pytest.raises(ValueError, match="variant"):
            nn.Dense(4, variant="fastest")(x)


def correlate(x, w, strides=(1, 1), dilation=(1, 1)):
    """Convolution without padding, by its definition."""
    oh = (x.shape[1] - (w.shape[0] - 1) * dilation[0] - 1) // strides[0] + 1
    ow = (x.shape[2] - (w.shape[1] - 1) * dilation[1] - 1) // strides[1] + 1
    y = np.zeros((len(x), oh, ow, w.shape[3]))
    for row in range(oh):
        for column in range(ow):
            for i in range(w.shape[0]):
                for j in range(w.shape[1]):
                    cell = x[:, row * strides[0] + i * dilation[0], column * strides[1] + j * dilation[1]]
                    y[:, row, column] += cell @ w[i, j]
    return y


class TestConv2D:
    @pytest.mark.parametrize(
        ("options", "padding"),
        [
            ({}, ((0, 0), (0, 0))),
            ({"padding": "same"}, ((1, 1), (0, 1))),
            ({"padding": "SAME", "strides": 2}, ((1, 1), (0, 0))),
            ({"padding": ((1, 0), (2, 3)), "strides": (2, 1)}, ((1, 0), (2, 3))),
            ({"dilation_rate": (2, 3)}, ((0, 0), (0, 0))),
            ({"activation": "sigmoid"}, ((0, 0), (0, 0))),
            ({"activation": "relu", "use_bias": False}, ((0, 0), (0, 0))),
        ],
    )
    def test_formula(self, options, padding):
        x = draw(2, 7, 6, 3)
        layer = randomised(nn.Conv2D(4, (3, 2), **options, **F64), x)
        kernel, *bias = layer.get_weights()
        assert kernel.shape == (3, 2, 3, 4)
        y = correlate(np.pad(x, ((0, 0), *padding, (0, 0))), kernel, layer.strides, layer.dilation_rate)
        y = y + (bias[0] if bias else 0)
        y = {"relu": lambda y: np.maximum(y, 0), "sigmoid": sigmoid}.get(options.get("activation"), lambda y: y)(y)
        np.testing.assert_allclose(layer(x).data, y, rtol=1e-10, atol=1e-12)
        assert layer.compute_output_shape((None, 7, 6, 3)) == (None, *y.shape[1:])

    def test_groups(self):
        x = draw(2, 5, 5, 4)
        layer = randomised(nn.Conv2D(6, 3, groups=2, use_bias=False, **F64), x)
        (kernel,) = layer.get_weights()
        assert kernel.shape == (3, 3, 2, 6)
        parts = [correlate(x[..., 2 * g : 2 * g + 2], kernel[..., 3 * g : 3 * g + 3]) for g in range(2)]
        np.testing.assert_allclose(layer(x).data, np.concatenate(parts, -1), rtol=1e-10, atol=1e-12)


class TestPooling:
    @pytest.mark.parametrize(("layer", "reduce"), [(nn.MaxPooling2D, np.max), (nn.AveragePooling2D, np.mean)])
    def test_windows(self, layer, reduce):
        x = draw(2, 5, 7, 3)
        windows = np.array(
            [[reduce(x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2], (1, 2)) for j in range(3)] for i in range(2)]
        )
        y = layer(**F64)(x)
        np.testing.assert_allclose(y.data, windows.transpose(2, 0, 1, 3))
        assert layer().compute_output_shape((None, 5, 7, 3)) == (None, 2, 3, 3)
        np.testing.assert_allclose(
            layer(pool_size=2, strides=2, padding="same", **F64)(x).data[:, -1, -1], x[:, -1, -1]
        )
        assert layer(3, strides=1, padding="same").compute_output_shape((None, 5, None, 3)) == (None, 5, None, 3)

    @pytest.mark.parametrize(
        ("layer", "reduce"), [(nn.GlobalMaxPooling2D, np.max), (nn.GlobalAveragePooling2D, np.mean)]
    )
    def test_whole_images(self, layer, reduce):
        x = draw(2, 5, 7, 3)
        np.testing.assert_allclose(layer(**F64)(x).data, reduce(x, (1, 2)))
        np.testing.assert_allclose(layer(keepdims=True, **F64)(x).data, reduce(x, (1, 2), keepdims=True))
        assert layer().compute_output_shape((None, 5, 7, 3)) == (None, 3)
        assert layer(keepdims=True).compute_output_shape((None, 5, 7, 3)) == (None, 1, 1, 3)

    def test_short_names(self):
        assert nn.MaxPool2D is nn.layers.MaxPool2D is nn.MaxPooling2D
        assert nn.AvgPool2D is nn.layers.AvgPool2D is nn.AveragePooling2D
        assert nn.GlobalMaxPool2D is nn.layers.GlobalMaxPool2D is nn.GlobalMaxPooling2D
        assert nn.GlobalAvgPool2D is nn.layers.GlobalAvgPool2D is nn.GlobalAveragePooling2D


class TestShaping:
    @pytest.mark.parametrize(
        ("pooling", "joined"),
        [
            (nn.MaxPooling2D(), True),
            (nn.MaxPooling2D(3), False),
            (nn.MaxPooling2D(2, strides=1), False),
            (nn.MaxPooling2D(padding="same"), False),
            (nn.MaxPooling2D(variant="naive"), False),
            (nn.AveragePooling2D(), False),
        ],
    )
    def test_a_convolution_computes_the_maximum_behind_it(self, pooling, joined, monkeypatch):
        """In a `Sequential`, once both are built; the numbers are those of the layers one by one."""
        calls = []
        call = nn.Conv2D.call
        monkeypatch.setattr(nn.Conv2D, "call", lambda *args, **options: calls.append(options) or call(*args, **options))
        convolution = nn.Conv2D(4, 3, activation="relu")
        model = nn.Sequential([convolution, pooling, nn.Flatten()])
        x = np.random.default_rng(3).uniform(-1, 1, (2, 9, 8, 3)).astype("float32")
        first, second = model(x), model(x)
        assert calls == [{}, {"pool": True} if joined else {}]
        assert convolution.output_shape == (None, 7, 6, 4)
        np.testing.assert_array_equal(second.numpy(), first.numpy())
        np.testing.assert_array_equal(second.numpy(), pooling(convolution(x)).numpy().reshape(2, -1))

    def test_flatten(self):
        x = draw(2, 3, 4, 5)
        np.testing.assert_array_equal(nn.Flatten(**F64)(x).data, x.reshape(2, 60))
        assert nn.Flatten()(np.zeros((0, 3, 4))).shape == (0, 12)
        assert nn.Flatten().compute_output_shape((None, 3, 4)) == (None, 12)
        assert nn.Flatten().compute_output_shape((None, None, 4)) == (None, None)
        assert nn.Flatten()(np.zeros(3)).shape == (3, 1)

    def test_reshape(self):
        x = draw(2, 3, 4)
        np.testing.assert_array_equal(nn.Reshape((2, -1), **F64)(x).data, x.reshape(2, 2, 6))
        assert nn.Reshape(12)(x).shape == (2, 12)
        assert nn.Reshape((-1, 2)).compute_output_shape((None, None, 4)) == (None, None, 2)
        with pytest.raises(
            ValueError, match=re.escape("Reshape: a sample has shape (3, 4), 12 values: they do not fit")
        ):
            nn.Reshape((5, -1))(x)
        with pytest.raises(ValueError, match=re.escape("target_shape (3, 3)")):
            nn.Reshape((3, 3))(x)
        with pytest.raises(
            ValueError, match="Reshape: target_shape must hold positive integers and at most one -1, got"
        ):
            nn.Reshape((-1, -1))

    def test_activation(self):
        x = draw(2, 3)
        np.testing.assert_allclose(nn.Activation("softmax", **F64)(x).data, softmax(x))
        np.testing.assert_allclose(nn.Activation(lambda x: x * x, **F64)(x).data, x * x)
        assert nn.Activation("relu").compute_output_shape((None, 3)) == (None, 3)


class TestDropout:
    def test_only_in_training(self):
        x = np.ones((100, 100), np.float32)
        layer = nn.Dropout(0.3, seed=1)
        assert layer(x).data is x
        y = layer(x, training=True).data
        assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.7)}
        assert 0.68 < (y != 0).mean() < 0.72
        assert layer(x).data is x
        layer.training = True
        assert (layer(x).data == 0).any()
        assert nn.Dropout(0)(x, training=True).data is x

    def test_every_call_and_every_layer_has_its_mask_and_a_seed_repeats_them(self):
        x = np.ones((50, 50), np.float32)

        def masks():
            nn.set_random_seed(5)
            one, other = nn.Dropout(0.5), nn.Dropout(0.5)
            return [layer(x, training=True).data for layer in (one, one, other)]

        first, again = masks(), masks()
        for index, mask in enumerate(first):
            np.testing.assert_array_equal(mask, again[index])
            for later in first[index + 1 :]:
                assert not np.array_equal(mask, later)

    def test_backward_uses_the_same_mask(self):
        x = Tensor(np.ones((20, 20)), requires_grad=True)
        y = nn.Dropout(0.5, **F64)(x, training=True)
        y.sum().backward()
        np.testing.assert_array_equal(x.grad, y.data)

    @pytest.mark.parametrize("rate", [np.float32(0.5), np.float64(0.5), Fraction(1, 2), 0.5, 0, np.int64(0)])
    def test_any_real_number_is_a_rate(self, rate):
        assert nn.Dropout(rate).rate == rate
        assert type(nn.Dropout(rate).get_config()["rate"]) is float

    @pytest.mark.parametrize("rate", [1, -0.1, 1.5, float("nan")])
    def test_rates(self, rate):
        with pytest.raises(ValueError, match="Dropout: rate must be a number from 0 to below 1, got"):
            nn.Dropout(rate)
        with pytest.raises(TypeError, match="Dropout: rate must be a number from 0 to below 1, got 'half'"):
            nn.Dropout("half")


def lstm(x, kernel, recurrent_kernel, bias=0, h=None, c=None):
    """All outputs and the last cell state, gates in Keras's order i, f, c, o."""
    h = np.zeros((len(x), len(recurrent_kernel))) if h is None else h
    c = np.zeros_like(h) if c is None else c
    outputs = []
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ kernel + h @ recurrent_kernel + bias, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs, 1), c


class TestLSTM:
    x = draw(3, 6, 5)

    def build(self, **options):
        layer = randomised(nn.LSTM(4, **options, **F64), self.x)
        return layer, layer.get_weights()

    def test_outputs_and_states(self):
        layer, weights = self.build(return_sequences=True, return_state=True)
        assert [weight.shape for weight in weights] == [(5, 16), (4, 16), (16,)]
        y, h, c = layer(self.x)
        expected, cell = lstm(self.x, *weights)
        np.testing.assert_allclose(y.data, expected, rtol=1e-10)
        np.testing.assert_allclose(h.data, expected[:, -1], rtol=1e-10)
        np.testing.assert_allclose(c.data, cell, rtol=1e-10)

    def test_last_output(self):
        layer, weights = self.build()
        np.testing.assert_allclose(layer(self.x).data, lstm(self.x, *weights)[0][:, -1], rtol=1e-10)

    def test_last_output_and_state_without_bias(self):
        layer, weights = self.build(return_state=True, use_bias=False)
        assert len(weights) == 2
        y, h, c = layer(self.x)
        expected, cell = lstm(self.x, *weights)
        np.testing.assert_allclose(y.data, expected[:, -1], rtol=1e-10)
        np.testing.assert_array_equal(h.data, y.data)
        np.testing.assert_allclose(c.data, cell, rtol=1e-10)

    def test_initial_state(self):
        layer, weights = self.build(return_sequences=True)
        h, c = draw(3, 4), draw(3, 4)
        np.testing.assert_allclose(
            layer(self.x, initial_state=[h, c]).data, lstm(self.x, *weights, h, c)[0], rtol=1e-10
        )
        with pytest.raises(
            ValueError, match=re.escape("LSTM: initial_state must be the two states (h, c), got ndarray")
        ):
            layer(self.x, initial_state=h)

    def test_two_halves_with_the_state_between_them_are_the_whole(self):
        layer, _ = self.build(return_sequences=True, return_state=True)
        whole, h, c = layer(self.x)
        first, *state = layer(self.x[:, :4])
        second, h_, c_ = layer(self.x[:, 4:], initial_state=state)
        np.testing.assert_allclose(np.concatenate([first.data, second.data], 1), whole.data, rtol=1e-12)
        np.testing.assert_allclose([h_.data, c_.data], [h.data, c.data], rtol=1e-12)

    def test_go_backwards(self):
        layer, weights = self.build(return_sequences=True, go_backwards=True)
        np.testing.assert_allclose(layer(self.x).data, lstm(self.x[:, ::-1], *weights)[0], rtol=1e-10)

    def test_gradients_flow_from_the_last_output(self):
        layer, _ = self.build()
        layer(self.x).sum().backward()
        assert all(np.abs(weight.grad).max() > 0 for weight in layer.weights)

    def test_first_values(self):
        layer = nn.LSTM(8, input_shape=(None, 3))
        layer(np.zeros((1, 2, 3)))
        _, recurrent_kernel, bias = layer.get_weights()
        np.testing.assert_allclose(recurrent_kernel @ recurrent_kernel.T, np.eye(8), atol=1e-5)
        np.testing.assert_array_equal(bias, np.repeat([0, 1, 0, 0], 8))
        plain = nn.LSTM(8, unit_forget_bias=False)
        plain(np.zeros((1, 2, 3)))
        assert not plain.bias.data.any()

    def test_shapes(self):
        assert nn.LSTM(4).compute_output_shape((None, None, 3)) == (None, 4)
        assert nn.LSTM(4, return_sequences=True).compute_output_shape((None, None, 3)) == (None, None, 4)
        assert nn.LSTM(4, return_state=True).compute_output_shape((2, 7, 3)) == ((2, 4), (2, 4), (2, 4))

    def test_other_activations(self):
        with pytest.raises(
            ValueError, match="LSTM: activation is 'relu' and recurrent_activation 'sigmoid': the kernel"
        ):
            nn.LSTM(4, activation="relu")


@pytest.mark.parametrize("make", [lambda: nn.Dense(3, activation="relu"), lambda: nn.Conv2D(3, 1, activation="relu")])
@pytest.mark.parametrize("after", ["tanh", None, "softmax", lambda x: x * 2])
def test_an_activation_may_be_exchanged(make, after):
    layer, expected = make(), make()
    x = draw(2, 4) if isinstance(layer, nn.Dense) else draw(2, 5, 5, 4)
    model = nn.Sequential([layer])
    for _ in range(3):  # the third is played back
        model.predict(x, verbose=0)
    expected(x)
    expected.set_weights(layer.get_weights())
    expected.activation = layer.activation = after
    plain = make().from_config({**make().get_config(), "activation": None})
    plain(x)
    plain.set_weights(layer.get_weights())
    np.testing.assert_allclose(
        model.predict(x, verbose=0), nn.activations.get(after)(plain(x)).data, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(expected(x).data, layer(x).data)
