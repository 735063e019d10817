"""Models: how they are put together, built, shown, named and made again."""

import re

import numpy as np
import pytest

from handloom import nn
from handloom.nn import Tensor
from handloom.nn.models import Sequential

RNG = np.random.default_rng(9)


class Net(nn.Model):
    def __init__(self, units=3):
        super().__init__()
        self.hidden = nn.Dense(5, activation="tanh")
        self.branches = [nn.Dense(units), nn.Dense(units)]

    def call(self, x):
        h = self.hidden(x)
        return sum((branch(h) for branch in self.branches), 0)


class TestSequential:
    def test_is_built_as_soon_as_the_input_shape_is_known(self):
        for model in (
            Sequential([nn.Dense(4, input_dim=3), nn.Dense(2)]),
            Sequential([nn.Dense(4, input_shape=(3,)), nn.Dense(2)]),
            Sequential([nn.Input((3,)), nn.Dense(4), nn.Dense(2)]),
            Sequential([nn.Input(shape=(3,), dtype="float32", name="pixels"), Sequential([nn.Dense(4), nn.Dense(2)])]),
            Sequential([Sequential([nn.Dense(4, input_dim=3)]), nn.Dense(2)]),
        ):
            assert [weight.shape for weight in model.weights] == [(3, 4), (4,), (4, 2), (2,)]
            assert model.input_shape == (None, 3)
            assert model.output_shape == (None, 2)
            assert model.count_params() == 26

    def test_is_built_by_its_first_call_else(self):
        model = Sequential([nn.Dense(4), nn.Dense(2)])
        assert not model.built
        assert model.weights == []
        assert model(np.zeros((1, 3))).shape == (1, 2)
        assert model.count_params() == 26
        assert model.output_shape == (None, 2)
        assert model.input_shape is None

    def test_can_be_built_by_hand(self):
        model = Sequential([nn.Dense(4), nn.Dense(2)])
        model.build((None, 3))
        assert model.count_params() == 26
        assert model.build_shape == (None, 3)

    def test_grows_after_it_was_called(self):
        model = Sequential([nn.Dense(4)])
        model(np.zeros((1, 3)))
        model.add(nn.Dense(2))
        assert model(np.zeros((1, 3))).shape == (1, 2)
        assert model.count_params() == 26
        last = model.pop()
        assert last.units == 2
        assert model(np.zeros((1, 3))).shape == (1, 4)

    def test_layers_that_cannot_tell_their_output_shape(self):
        class Shift(nn.Layer):
            def call(self, x):
                return x[:, :-1]

        model = Sequential([nn.LSTM(4, return_sequences=True, input_shape=(None, 3)), Shift(), nn.Dense(2)])
        assert len(model.weights) == 3
        assert model.output_shape is None
        with pytest.raises(ValueError, match="count_params: .* is not built yet"):
            model.count_params()
        assert model(np.zeros((1, 5, 3))).shape == (1, 4, 2)
        assert len(model.weights) == 5
        assert Sequential([nn.Input((6,)), Shift(), nn.Dense(2)]).output_shape == (None, 2)

    def test_computes_in_the_layers_dtype(self):
        x = RNG.standard_normal((4, 3))
        model = Sequential([nn.Dense(2, dtype="float64")])
        y = model(x)
        np.testing.assert_array_equal(y.data, model.layers[0](x).data)
        assert y.dtype == model.dtype == np.float64
        np.testing.assert_allclose(y.data, x @ model.layers[0].kernel.data, rtol=1e-12)

    def test_its_dtype_is_for_layers_that_have_none_of_their_own(self):
        model = Sequential(dtype="float64")
        model.add(nn.Dense(2, dtype="float32", input_dim=3))
        model.add(nn.Dense(2))
        inner = Sequential([nn.Flatten(), Sequential([nn.Dense(2)])])
        model.add(inner)
        inner.add(nn.Dense(1))
        kinds = {layer.dtype.name for layer in model.all_layers()[2:]}
        assert (model.dtype, model.layers[0].dtype, kinds) == (np.float64, np.float32, {"float64"})
        assert {weight.dtype.name for weight in inner.weights} == {"float64"}
        again = Sequential.from_config(model.get_config())
        assert again.get_config() == model.get_config()
        again.add(nn.Dense(1))
        assert again.layers[-1].dtype == np.float64
        built = Sequential([nn.Dense(2, input_dim=2)], name="built")
        message = "Sequential.add: 'built' is float32 already and the model float64: make it with dtype='float64'"
        with pytest.raises(ValueError, match=re.escape(message)):
            model.add(built)

    def test_trainable_false_reaches_all_its_layers(self):
        for model in (
            Sequential([nn.Dense(2, input_dim=3), Sequential([nn.Dense(2)])], trainable=False),
            Sequential([nn.Dense(2), Sequential([nn.Dense(2)])], trainable=False),
        ):
            model.add(nn.Dense(2))
            model(np.zeros((1, 3)))
            assert len(model.weights) == 6
            assert model.trainable_weights == []
            assert not any(layer.trainable for layer in model.all_layers())
        model.layers[2].trainable = True
        model.add(nn.Dense(2))
        model(np.zeros((1, 3)))
        assert model.trainable_weights == model.layers[2].weights
        again = Sequential.from_config(model.get_config())
        again(np.zeros((1, 3)))
        assert [layer.trainable for layer in again.layers] == [False, False, True, False]
        assert again.trainable_weights == again.layers[2].weights

    def test_a_batch_of_nothing(self):
        model = Sequential([nn.Dense(4, activation="relu"), nn.Dense(2, activation="softmax")])
        model(np.zeros((1, 3)))
        assert model(np.zeros((0, 3))).shape == (0, 2)

    def test_what_add_refuses(self):
        model = Sequential([nn.Dense(2, name="mine", input_dim=3)])
        with pytest.raises(TypeError, match="Sequential.add: <class .*Dense'> is no layer: pass an instance such as"):
            model.add(nn.Dense)
        with pytest.raises(
            ValueError, match=re.escape("Sequential.add: <Input shape=(None, 3)> must be the first entry")
        ):
            model.add(nn.Input((3,)))
        with pytest.raises(ValueError, match="Sequential.add: the layer 'mine' is in the model already: make a second"):
            model.add(model.layers[0])
        with pytest.raises(
            ValueError, match="Sequential.add: there is a layer named 'mine' already: names must differ"
        ):
            model.add(nn.Dense(2, name="mine"))

    def test_a_layer_that_does_not_fit_leaves_no_trace(self):
        model = Sequential([nn.Conv2D(2, 1, input_shape=(2, 2, 1))])
        before = dict(vars(model))
        with pytest.raises(ValueError, match="Conv2D: the input has shape .* it is smaller than the window of 9 cells"):
            model.add(nn.Conv2D(2, 9))
        assert vars(model) == before
        model.add(nn.Flatten())
        assert model.output_shape == (None, 8)

    def test_a_first_layer_that_does_not_fit_leaves_no_trace(self):
        model = Sequential()
        with pytest.raises(ValueError, match="smaller than the window"):
            model.add(nn.Conv2D(2, 9, input_shape=(2, 2, 1), dtype="float64"))
        model.add(nn.Dense(2, input_dim=3))
        assert (model.input_shape, model.dtype) == ((None, 3), np.float32)

    def test_takes_another_input_shape_once_it_is_empty(self):
        model = Sequential([nn.Dense(2, input_dim=3), nn.Dense(2)])
        model.pop()
        assert model.input_shape == (None, 3)
        model.pop()
        assert model.input_shape is None
        assert not model.built
        model.add(nn.Dense(2, input_dim=5))
        assert (model.input_shape, model.output_shape) == ((None, 5), (None, 2))

    def test_empty(self):
        model = Sequential(name="empty")
        with pytest.raises(ValueError, match="Sequential: the model 'empty' has no layers: add one first"):
            model(np.zeros((1, 3)))
        with pytest.raises(ValueError, match="Sequential: the model 'empty' has no layers: add one first"):
            model.predict(np.zeros((1, 3)), verbose=0)
        with pytest.raises(ValueError, match="Sequential.pop: the model has no layers"):
            model.pop()


class TestModel:
    def test_weights_in_the_order_of_definition(self):
        net = Net()
        net(np.zeros((1, 2)))
        assert [name for name, _ in net.named_weights()] == [
            "hidden/kernel",
            "hidden/bias",
            "branches/0/kernel",
            "branches/0/bias",
            "branches/1/kernel",
            "branches/1/bias",
        ]
        assert net.layers == [net.hidden, *net.branches]

    def test_names_do_not_depend_on_what_else_there_is(self):
        def names():
            model = Sequential([nn.Dense(2, input_dim=2), nn.Flatten(), nn.Dense(2, name="mine"), Net()])
            return [name for name, _ in model.named_weights()]

        assert names() == names()
        assert names()[:4] == ["dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias"]

    def test_get_layer(self):
        net = Net()
        assert net.get_layer(net.hidden.name) is net.get_layer(index=0) is net.hidden
        assert net.get_layer(index=-1) is net.branches[1]
        model = Sequential([nn.Dense(1, name="first")], name="mine")
        for options, message in (
            ({"name": "frist"}, "get_layer: layer of 'mine': unknown name 'frist': it must be one of first; did you"),
            ({"index": 1}, "get_layer: index must be an integer below 1, the number of layers of 'mine', got 1"),
            ({"index": "a"}, "get_layer: index must be an integer below 1, the number of layers of 'mine', got 'a'"),
            ({}, "get_layer: give either name or index, got name=None and index=None"),
            ({"name": "first", "index": 0}, "get_layer: give either name or index, got name='first' and index=0"),
        ):
            with pytest.raises(ValueError, match=re.escape(message)):
                model.get_layer(**options)

    def test_build_by_hand(self):
        net = Net()
        net.build((None, 2))
        assert net.built
        assert net.count_params() == 15 + 2 * 18

    def test_models_from_inputs_and_outputs(self):
        for make in (lambda: nn.Model(1, 2), lambda: nn.Model(inputs=1, outputs=2)):
            with pytest.raises(
                TypeError, match="Model: models are not made from inputs and outputs here: use Sequential"
            ):
                make()

    def test_predict_returns_an_array(self):
        x = RNG.standard_normal((7, 2))
        net = Net()
        expected = net(x).data
        for data in (x, x.tolist(), Tensor(x), x.astype(np.float32)):
            y = net.predict(data, batch_size=3, verbose=0)
            assert type(y) is np.ndarray
            np.testing.assert_allclose(y, expected, rtol=1e-5)
        np.testing.assert_allclose(net.predict_on_batch(x), expected, rtol=1e-5)


class TestSummary:
    def test_table(self, capsys):
        model = Sequential(
            [
                nn.Conv2D(4, 3, input_shape=(28, 28, 1), name="first"),
                nn.Flatten(name="flat"),
                nn.Dense(10, name="last"),
            ],
            name="mine",
        )
        model.layers[0].trainable = False
        model.summary()
        text = capsys.readouterr().out
        assert 'Model: "mine"' in text
        for cells in (
            ("Layer (type)", "Output Shape", "Param #"),
            ("first (Conv2D)", "(None, 26, 26, 4)", "40"),
            ("flat (Flatten)", "(None, 2704)", "0"),
            ("last (Dense)", "(None, 10)", "27,050"),
        ):
            assert re.search(" *[│┃] *".join(map(re.escape, cells)), text), cells
        assert "Total params: 27,090 (105.82 KB)" in text
        assert "Trainable params: 27,050" in text
        assert "Non-trainable params: 40 (160.00 B)" in text

    def test_before_building_and_as_a_string(self, capsys):
        texts = []
        Sequential([nn.Dense(2, name="late")]).summary(line_length=60, print_fn=texts.append)
        assert capsys.readouterr().out == ""
        assert re.search("late .Dense. *│ *[?] *│ *not built", texts[0])
        assert max(map(len, texts[0].splitlines())) <= 60

    def test_a_model_of_ones_own(self, capsys):
        net = Net()
        net(np.zeros((1, 2)))
        net.summary()
        assert re.search(r"\(Dense\) *│ *\(None, 5\) *│ *15", capsys.readouterr().out)


class TestConfigurations:
    def test_sequential(self):
        model = Sequential(
            [
                nn.Conv2D(4, 3, activation="relu", input_shape=(8, 8, 1)),
                nn.MaxPooling2D(),
                Sequential([nn.Flatten(), nn.Dense(3)]),
            ],
            name="mine",
        )
        config = model.get_config()
        again = Sequential.from_config(config)
        assert again.get_config() == config
        assert again.name == "mine"
        assert [weight.shape for weight in again.weights] == [weight.shape for weight in model.weights]
        again.set_weights(model.get_weights())
        x = RNG.random((2, 8, 8, 1))
        np.testing.assert_array_equal(again(x).data, model(x).data)

    def test_layers_of_ones_own(self):
        class Twice(nn.Layer):
            def call(self, x):
                return x * 2

        config = Sequential([nn.Input((3,)), Twice(), Sequential([Twice()])]).get_config()
        again = Sequential.from_config(config, custom_objects={"Twice": Twice})
        assert again(np.ones((1, 3))).data.tolist() == [[4, 4, 4]]
        with pytest.raises(ValueError, match=re.escape("pass custom_objects={'Twice': Twice}")):
            Sequential.from_config(config)


class Scaled(Sequential):
    """A `Sequential` with a weight and a layer of its own."""

    def __init__(self):
        super().__init__([nn.Input((4,)), nn.Dense(1)])
        self.scale = self.add_weight((1,), "ones", name="scale")
        self.extra = nn.Dense(1)

    def call(self, x):
        y = super().call(x)
        return self.extra(y * self.scale)


def test_what_a_subclass_of_sequential_adds_is_trained_and_saved(tmp_path):
    model, again = Scaled(), Scaled()
    x, y = np.ones((8, 4), np.float32), np.full((8, 1), 3.0, np.float32)
    model.compile("sgd", "mse")
    model.fit(x, y, epochs=2, verbose=0)
    names = [name for name, _ in model.named_weights()]
    assert names == ["scale", "dense/kernel", "dense/bias", "extra/kernel", "extra/bias"]
    assert model.scale.data[0] != 1 and model.extra.bias.data[0] != 0
    model.save_weights(tmp_path / "scaled.safetensors")
    again(x)
    again.load_weights(tmp_path / "scaled.safetensors")
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
