"""What all layers share: building, names, parameters, modes, configurations, devices and error texts."""

import re
import threading

import fake_gpu
import numpy as np
import pytest

from handloom import nn
from handloom.nn import Tensor, activations, initializers, layers

RNG = np.random.default_rng(4)


def draw(*shape):
    return RNG.standard_normal(shape)


class Scale(nn.Layer):
    """x * scale + shift, with the parameters made in build."""

    def build(self, input_shape):
        self.scale = self.add_weight((input_shape[-1],), "ones", name="scale")
        self.shift = self.add_weight(name="shift")

    def call(self, x):
        return x * self.scale + self.shift


class Block(nn.Layer):
    def __init__(self, units, depth=2, **options):
        super().__init__(**options)
        self.first = nn.Dense(units)
        self.rest = [nn.Dense(units, activation="relu") for _ in range(depth)]
        self.named = {"out": Scale(), "note": "no layer"}
        self.again = self.first

    def call(self, x):
        x = self.first(x)
        for layer in self.rest:
            x = x + layer(x)
        return self.named["out"](x)


class TestLayer:
    def test_sub_layers_and_parameters_are_found_in_order(self):
        block = Block(3)
        assert block.sublayers() == [block.first, *block.rest, block.named["out"]]
        assert block.weights == []
        block(draw(2, 3))
        assert [name for name, _ in block.named_weights()] == [
            "first/kernel",
            "first/bias",
            "rest/0/kernel",
            "rest/0/bias",
            "rest/1/kernel",
            "rest/1/bias",
            "named/out/scale",
            "named/out/shift",
        ]
        assert block.weights[0] is block.first.kernel
        assert block.count_params() == 3 * 12 + 4
        assert block.all_layers() == [block, *block.sublayers()]

    def test_own_parameters_come_first_and_names_are_unique(self):
        class Own(nn.Layer):
            def __init__(self):
                super().__init__()
                self.dense = nn.Dense(2)
                self.table = nn.Parameter(np.zeros(3))
                self.pair = [self.add_weight((2,), name="same"), self.add_weight((2,), name="same")]

            def call(self, x):
                return self.dense(x)

        own = Own()
        own(draw(1, 1))
        assert [name for name, _ in own.named_weights()] == ["same", "same_1", "table", "dense/kernel", "dense/bias"]

    def test_build_runs_once(self):
        layer = Scale()
        layer.build((None, 3))
        scale = layer.scale
        assert layer.built
        assert layer.build_shape == (None, 3)
        layer(draw(2, 3))
        assert layer.scale is scale

    def test_get_and_set_weights(self):
        layer = Scale()
        layer(np.zeros((1, 2)))
        arrays = layer.get_weights()
        arrays[0][:] = 5
        assert layer.scale.data.tolist() == [1, 1]
        before = layer.scale.data
        layer.set_weights([np.array([2, 3]), 4])
        assert layer.scale.data is before
        assert layer(np.ones((1, 2))).data.tolist() == [[6, 7]]
        with pytest.raises(ValueError, match=r"set_weights: got 1 arrays and 'scale\w*' has 2 parameters$"):
            layer.set_weights([np.zeros(2)])
        with pytest.raises(ValueError, match=re.escape("set_weights: shift is () and its array (1,)")):
            layer.set_weights([np.zeros(2), np.zeros(1)])
        assert layer.scale.data.tolist() == [2, 3]
        with pytest.raises(
            ValueError, match="has 0 parameters because it is not built yet: call it once, or give input_"
        ):
            Scale().set_weights([np.zeros(2), 0])

    def test_add_weight(self):
        layer = nn.Layer(dtype="float64")
        assert layer.add_weight((3, 4)).data.any()
        assert not layer.add_weight(3).data.any()
        frozen = layer.add_weight((2,), "ones", trainable=False)
        assert (frozen.name, frozen.dtype, frozen.requires_grad) == ("weight_2", np.float64, False)
        assert layer.non_trainable_weights == [frozen]
        layer.trainable = False
        layer.trainable = True
        assert layer.trainable_weights == layer.weights[:2]

    def test_trainable(self):
        block = Block(3)
        block.rest[0].trainable = False
        block(draw(2, 3))
        assert len(block.trainable_weights) == 6
        assert block.trainable
        block.trainable = False
        assert block.trainable_weights == []
        assert not block.first.trainable
        frozen = nn.Dense(2, trainable=False)
        frozen(draw(1, 2)).sum()
        assert frozen.non_trainable_weights == frozen.weights

    def test_training_reaches_all_layers_and_ends(self):
        block = Block(3)
        seen = []
        block.rest[1].call = lambda x: (seen.append(block.rest[1].training), x)[1]
        block(draw(2, 3))
        block(draw(2, 3), training=True)
        block(draw(2, 3))
        block.training = True
        block(draw(2, 3), training=False)
        block(draw(2, 3))
        assert seen == [False, True, False, False, True]

    def test_sub_layers_made_in_build_take_over_the_modes(self):
        class Late(nn.Layer):
            def build(self, input_shape):
                self.inner = nn.Dense(2)

            def call(self, x):
                return self.inner(x)

        late = Late(trainable=False)
        late.training = True
        late(draw(1, 2))
        assert late.inner.training
        assert late.weights
        assert late.trainable_weights == []

    def test_parts_take_over_a_trainable_of_false_unless_they_have_their_own(self):
        class Net(nn.Model):
            def __init__(self, **options):
                super().__init__(**options)
                self.inner = nn.Sequential([nn.Dense(2, input_dim=3)])
                self.table = nn.Parameter(np.zeros(2))
                self.own, self.later = nn.Dense(2, trainable=True), nn.Dense(2)
                self.later.trainable = False

            def call(self, x):
                return self.later(self.own(self.inner(x))) + self.table

        frozen, usual = Net(trainable=False), Net()
        for net in (frozen, usual):
            net(draw(1, 3))
        assert frozen.trainable_weights == frozen.own.weights
        assert usual.trainable_weights == [usual.table, *usual.inner.weights, *usual.own.weights]
        frozen = Net(trainable=False)
        frozen.build((None, 3))
        assert frozen.trainable_weights == frozen.own.weights
        frozen = Net()
        frozen.trainable = False
        frozen.later.trainable = True  # told so before it is built, and it stays so
        frozen(draw(1, 3))
        assert frozen.trainable_weights == frozen.later.weights

    def test_call_with_a_training_argument_as_in_keras(self):
        class Noise(nn.Layer):
            def call(self, x, training=None):
                return x + 1 if training else x

        noise = Noise()
        assert noise(np.zeros(1)).item() == 0
        assert noise(np.zeros(1), training=True).item() == 1

    def test_the_mode_of_the_moment_is_the_threads_own(self):
        block, other = Block(3), Block(3)
        block.rest[0].training = True  # lasts, below what holds for the moment
        modes, here, there = {}, threading.Event(), threading.Event()

        def second():
            here.wait(10)
            modes["second before"] = (block.training, block.rest[0].training)
            with block._in_mode(False):
                there.set()
                modes["second"] = (block.training, block.rest[0].training)

        thread = threading.Thread(target=second)
        thread.start()
        with block._in_mode(True):
            here.set()
            there.wait(10)
            modes["first"] = (block.training, block.first.training, other.training, other.first.training)
            with other._in_mode(False), block.first._in_mode(False):
                modes["inside"] = (block.training, block.first.training)
            block.first.training = False
            modes["again"] = (block.training, block.first.training)
        thread.join()
        assert modes == {
            "second before": (False, True),
            "second": (False, False),
            "first": (True, True, False, False),
            "inside": (True, False),
            "again": (True, True),
        }
        assert [layer.training for layer in block.all_layers()] == [False, False, True, False, False]

    def test_the_mode_of_the_moment_ends_with_an_error(self):
        block = Block(3)
        with pytest.raises(ZeroDivisionError), block._in_mode(True):
            _ = 1 / 0
        assert not block.training

    def test_layers_built_for_the_moment_are_in_its_modes(self):
        class Late(nn.Layer):
            def build(self, input_shape):
                self.inner = nn.Dropout(0.5)

            def call(self, x):
                return self.inner(x)

        model = nn.Sequential([Late()])
        with model._in_mode(True):
            with model._in_mode(False):
                model(np.ones((1, 2)))
                inner = model.layers[0].inner
                assert not inner.training
            assert inner.training
            added = nn.Dropout(0.5)
            model.add(added)
            assert added.training
        assert not inner.training
        assert not added.training

    def test_several_inputs(self):
        class Sum(nn.Layer):
            def call(self, x, y, scale=1):
                return (x + y) * scale

        class SumOfTuple(nn.Layer):
            def build(self, input_shape):
                assert input_shape == ((None, 2), (None, 1))

            def call(self, inputs):
                x, y = inputs
                return x + y

        assert Sum()(np.ones((1, 2)), np.ones((1, 1)), scale=2).data.tolist() == [[4, 4]]
        assert Sum()(np.ones(1), np.ones(1)).dtype == np.float32
        assert SumOfTuple()([np.ones((1, 2)), Tensor(np.ones((1, 1)))]).data.tolist() == [[2, 2]]

    def test_inputs_are_cast(self):
        for x in (
            draw(2, 3),
            draw(2, 3).astype(np.float32),
            RNG.integers(0, 9, (2, 3)),
            [[1, 2, 3]],
            np.ones((2, 3), bool),
        ):
            assert nn.Dense(2)(x).dtype == np.float32
            assert nn.Dense(2, dtype="float64")(x).dtype == np.float64
        x = Tensor(draw(2, 3), requires_grad=True)
        nn.Dense(2)(x).sum().backward()
        assert x.grad.dtype == np.float64

    def test_names(self):
        first = nn.GlobalAveragePooling2D()
        assert re.fullmatch(r"global_average_pooling2d(_\d+)?", first.name)
        number = int((first.name.split("2d_") + ["0"])[1])
        assert nn.GlobalAveragePooling2D().name == f"global_average_pooling2d_{number + 1}"
        assert re.fullmatch(r"max_pooling2d(_\d+)?", nn.MaxPooling2D().name)
        assert re.fullmatch(r"lstm(_\d+)?", nn.LSTM(1).name)
        assert re.fullmatch(r"conv2d(_\d+)?", nn.Conv2D(1, 1).name)
        assert nn.Dense(1, name="mine").name == "mine"
        assert repr(nn.Dense(1, name="mine")) == "<Dense name=mine>"

    def test_devices(self, monkeypatch):
        fake_gpu.install(monkeypatch)  # a machine without a driver
        for make in (
            lambda **device: nn.Dense(1, **device),
            lambda **device: nn.Conv2D(1, 1, **device),
            lambda **device: nn.MaxPooling2D(**device),
            lambda **device: nn.Flatten(**device),
            lambda **device: nn.Reshape((1,), **device),
            lambda **device: nn.Activation("relu", **device),
            lambda **device: nn.Dropout(0.5, **device),
            lambda **device: nn.LSTM(1, **device),
            lambda **device: nn.Sequential(**device),
            lambda **device: nn.Model(**device),
        ):
            layer = make(device="cpu")
            assert layer.to("cpu") is layer
            kind = type(layer).__name__
            with pytest.raises(ValueError, match=f"{kind}: device 'cuda': there is no NVIDIA driver"):
                make(device="cuda")
            with pytest.raises(ValueError, match=f"{kind}.to: device 'cuda:1': there is no NVIDIA driver"):
                layer.to("cuda:1")
        with pytest.raises(ValueError, match="Dense: device: unknown name 'cpv': .*; did you mean 'cpu'"):
            nn.Dense(1, device="cpv")
        for name in ("gpu", "/GPU:0"):
            with pytest.raises(ValueError, match=f"Dense: device: unknown name '{name}': it must be one of cpu, cuda"):
                nn.Dense(1, device=name)
        with pytest.raises(ValueError, match="did you mean 'cuda'"):
            nn.Dense(1, device="gpu")
        with pytest.raises(TypeError, match="Dense: device must be a name such as 'cpu' or 'cuda', got 3"):
            nn.Dense(1, device=3)
        assert nn.Input((3,), device="cpu").device == "cpu"
        with pytest.raises(ValueError, match="Input: device 'cuda': there is no NVIDIA driver"):
            nn.Input((3,), device="cuda")

    def test_to_device(self, monkeypatch):
        fake_gpu.install(monkeypatch)
        x, tensor = np.ones(2), Tensor([1.0])
        assert nn.to_device(x, "cpu") is x
        assert nn.to_device(tensor, "cpu") is tensor
        assert nn.to_device([1, 2], "cpu").tolist() == [1, 2]
        with pytest.raises(ValueError, match="to_device: device 'cuda': there is no NVIDIA driver"):
            nn.to_device(x, "cuda")


LAYERS = [
    nn.Dense(3, activation="relu", use_bias=False, kernel_initializer="he_normal", variant="naive"),
    nn.Conv2D(4, (3, 2), strides=2, padding=((1, 0), (2, 1)), activation="tanh", dtype="float64", name="special"),
    nn.Conv2D(4, 3, dilation_rate=2, groups=2, bias_initializer=initializers.Constant(2)),
    nn.MaxPooling2D(3, strides=1, padding="same"),
    nn.AveragePooling2D((2, 1)),
    nn.GlobalMaxPooling2D(keepdims=True),
    nn.GlobalAveragePooling2D(),
    nn.Flatten(trainable=False),
    nn.Reshape((2, -1)),
    nn.Activation("gelu"),
    nn.Dropout(0.25, seed=7),
    nn.LSTM(5, return_sequences=True, return_state=True, go_backwards=True, unit_forget_bias=False, use_bias=False),
]


class TestConfigurations:
    @pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
    def test_a_layer_comes_back_from_its_configuration(self, layer):
        config = layer.get_config()
        again = type(layer).from_config(config)
        assert again.get_config() == config
        assert again.name == layer.name
        assert (again.dtype, again.trainable) == (layer.dtype, layer.trainable)

    def test_every_layer_is_in_the_list(self):
        classes = {getattr(layers, name) for name in layers.__all__}
        assert {type(layer) for layer in LAYERS} == classes - {nn.Layer, nn.Input}

    def test_a_class_without_get_config_comes_back_from_its_arguments(self):
        block = Block(3, depth=1, name="mine", dtype="float64")
        config = block.get_config()
        assert config == {"units": 3, "depth": 1, "name": "mine", "dtype": "float64", "trainable": True}
        again = Block.from_config(config)
        assert len(again.rest) == 1
        assert again.name == "mine"

        class Strict(nn.Layer):
            def __init__(self, units):
                super().__init__()
                self.units = units

        assert Strict(4).get_config() == {"units": 4}
        assert Strict.from_config({"units": 4}).units == 4

    def test_own_activations_cannot_be_saved(self):
        with pytest.raises(ValueError, match="cannot be saved"):
            nn.Dense(1, activation=lambda x: x).get_config()
        assert nn.Dense(1, activation=activations.relu).get_config()["activation"] == "relu"


class TestErrors:
    @pytest.mark.parametrize(
        ("make", "error", "message"),
        [
            (lambda: nn.Dense(0), ValueError, "Dense: units must be a positive integer, got 0"),
            (lambda: nn.Dense(-3), ValueError, "Dense: units must be a positive integer, got -3"),
            (lambda: nn.Dense(2.5), TypeError, "Dense: units must be a positive integer, got 2.5"),
            (lambda: nn.Dense(True), ValueError, "Dense: units must be a positive integer, got True"),
            (lambda: nn.Conv2D(0, 3), ValueError, "Conv2D: filters must be a positive integer, got 0"),
            (lambda: nn.Conv2D(1, (3, 0)), ValueError, "Conv2D: kernel_size must be a positive integer, got 0"),
            (
                lambda: nn.Conv2D(1, (3, 3, 3)),
                ValueError,
                "Conv2D: kernel_size must be a positive integer or two of them (height, width), got (3, 3, 3)",
            ),
            (
                lambda: nn.Conv2D(3, 1, groups=2),
                ValueError,
                "Conv2D: filters must be a multiple of groups, got 3 and 2",
            ),
            (
                lambda: nn.Conv2D(1, 1, padding="full"),
                ValueError,
                "Conv2D: padding: unknown name 'full': it must be one of same, valid",
            ),
            (
                lambda: nn.Conv2D(1, 1, padding=1),
                ValueError,
                "Conv2D: padding must be 'valid', 'same' or ((top, bottom), (left, right)) with integers from 0, got 1",
            ),
            (lambda: nn.Conv2D(1, 1, padding=((1.9, 1), (1, 1))), ValueError, "from 0, got ((1.9, 1), (1, 1))"),
            (lambda: nn.Conv2D(1, 1, padding=((0, 0), (0, -1))), ValueError, "from 0, got ((0, 0), (0, -1))"),
            (
                lambda: nn.Conv2D(1, 1, data_format="channels_first"),
                ValueError,
                "Conv2D: data_format is 'channels_first': images are (N, H, W, C) here, move the channels to the end",
            ),
            (
                lambda: nn.MaxPooling2D(padding="sane"),
                ValueError,
                "MaxPooling2D: padding: unknown name 'sane': it must be one of same, valid; did you mean 'same'?",
            ),
            (lambda: nn.LSTM(0), ValueError, "LSTM: units must be a positive integer, got 0"),
            (
                lambda: nn.Dense(1, activation="rellu"),
                ValueError,
                "activation: unknown name 'rellu'",
            ),
            (lambda: nn.Dense(1, activation="rellu"), ValueError, "did you mean 'relu'?"),
            (lambda: nn.Dense(1, kernel_initializer="glorot"), ValueError, "initializer: unknown name 'glorot'"),
            (lambda: nn.Dense(1, dtype="float16"), TypeError, "Dense: dtype must be float32 or float64, got float16"),
            (
                lambda: nn.Dense(1, dtype="mixed_float16"),
                TypeError,
                "Dense: dtype must be float32 or float64, got mixed_float16",
            ),
            (
                lambda: nn.Dense(1, use_bais=False),
                TypeError,
                "Dense: argument: unknown name 'use_bais'",
            ),
            (lambda: nn.Dense(1, use_bais=False), TypeError, "did you mean 'use_bias'?"),
            (lambda: nn.Flatten(inputshape=(3,)), TypeError, "did you mean 'input_shape'?"),
            (
                lambda: nn.Dense(1, input_shape=3),
                TypeError,
                "Dense: input_shape must be a tuple such as (28, 28, 1), got 3",
            ),
            (lambda: nn.Dense(1, input_dim=0), ValueError, "Dense: input_dim must be a positive integer, got 0"),
            (lambda: nn.Input((3, -1)), ValueError, "Input: shape must be a positive integer, got -1"),
        ],
    )
    def test_arguments(self, make, error, message):
        with pytest.raises(error, match=re.escape(message)):
            make()

    @pytest.mark.parametrize(
        ("layer", "shape", "message"),
        [
            (
                nn.Dense(1),
                (3,),
                "Dense: the input has 1 axis: it must have at least 2 axes (N, ..., features), for one",
            ),
            (
                nn.Conv2D(1, 3),
                (2, 28, 28),
                "Conv2D: the input has shape (None, 28, 28): it must have 4 axes (N, H, W, C); a channel axis",
            ),
            (nn.Conv2D(1, 3), (2, 3), "Conv2D: the input has shape (None, 3): it must have 4 axes (N, H, W, C)"),
            (
                nn.Conv2D(1, 3),
                (2, 2, 9, 1),
                "Conv2D: the input has shape (None, 2, 9, 1): it is smaller than the window of 3 cells along axis 1",
            ),
            (nn.Conv2D(2, 3, groups=2), (1, 5, 5, 3), "Conv2D: the input has 3 channels: not a multiple of groups=2"),
            (nn.MaxPooling2D(), (2, 28), "MaxPooling2D: the input has shape (None, 28): it must have 4 axes"),
            (nn.GlobalMaxPooling2D(), (2, 28), "GlobalMaxPooling2D: the input has shape (None, 28): it must have 4"),
            (
                nn.LSTM(1),
                (2, 5),
                "LSTM: the input has shape (None, 5): it must have 3 axes (N, T, features); for one step",
            ),
        ],
    )
    def test_ranks_at_the_first_call(self, layer, shape, message):
        with pytest.raises(ValueError, match=re.escape(message)):
            layer(np.zeros(shape))

    @pytest.mark.parametrize(
        ("layer", "first", "second"),
        [
            (nn.Dense(2, name="mine"), (1, 3), (1, 4)),
            (nn.Conv2D(2, 3, name="mine"), (1, 5, 5, 3), (1, 5, 5, 1)),
            (nn.Conv2D(2, 3, name="mine"), (1, 5, 5, 3), (1, 5, 5)),
            (nn.LSTM(2, name="mine"), (1, 5, 3), (1, 5, 4)),
        ],
    )
    def test_later_calls_name_the_layer(self, layer, first, second):
        layer(np.zeros(first))
        shapes = f"{re.escape(str(second))}.*(?s:.*)in layer 'mine' .{type(layer).__name__}., called on shape"
        with pytest.raises(ValueError, match=shapes):
            nn.Sequential([layer])(np.zeros(second))

    def test_a_declared_shape_that_the_input_does_not_have(self):
        message = (
            "Dense: the input has shape (None, 3) and the layer is declared for (None, 4): they must be equal, leave "
            "its input_shape or input_dim out"
        )
        with pytest.raises(ValueError, match=re.escape(message)):
            nn.Dense(2, input_dim=4)(np.zeros((1, 3)))
        for shape in ((3,), (2, 4)):
            with pytest.raises(ValueError, match="is declared for"):
                nn.Sequential([nn.Input(shape), nn.Dense(2, input_dim=4)])
        with pytest.raises(ValueError, match="is declared for"):
            nn.Sequential([nn.Dense(3, input_dim=2), nn.Dense(2, input_dim=4)])
        assert nn.Sequential([nn.Input((5, 3)), nn.LSTM(2, input_shape=(None, 3))]).input_shape == (None, 5, 3)

    def test_lengths_that_must_be_known(self):
        for layer, shape in (
            (nn.Dense(1), (None,)),
            (nn.Conv2D(1, 1), (5, 5, None)),
            (nn.LSTM(1), (3, None)),
        ):
            with pytest.raises(ValueError, match="its last axis must have a known length, for example input_shape"):
                nn.Sequential([nn.Input(shape), layer])

    def test_count_params_before_building(self):
        with pytest.raises(ValueError, match="count_params: 'mine' is not built yet: call it once, or give"):
            nn.Dense(1, name="mine").count_params()

    def test_layers_called_on_layers(self):
        with pytest.raises(TypeError, match=re.escape("Dense: called on <Input shape=(None, 3)>: layers take arrays")):
            nn.Dense(1)(nn.Input((3,)))
        with pytest.raises(
            TypeError, match="Dense: called on <Dense name=other>: layers take arrays and tensors; chain"
        ):
            nn.Dense(1)(nn.Dense(1, name="other"))

    def test_incomplete_classes(self):
        class Forgetful(nn.Layer):
            def __init__(self):
                pass

        class Empty(nn.Layer):
            pass

        with pytest.raises(ValueError, match=re.escape("Forgetful: __init__ must begin with super().__init__()")):
            Forgetful()(np.zeros(1))
        with pytest.raises(NotImplementedError, match=re.escape("Empty: define call(self, x): it computes")):
            Empty()(np.zeros(1))
        with pytest.raises(
            NotImplementedError, match=re.escape("Empty: define compute_output_shape(self, input_shape)")
        ):
            Empty().compute_output_shape((None, None, 3))


def test_output_shapes_are_found_by_trying():
    assert Block(5).compute_output_shape((None, 3)) == (None, 5)


class Scales(nn.Layer):
    def build(self, input_shape):
        self.scales = [self.add_weight((2,), "zeros", name=name) for name in ("w", "w_1", "w", "w_1")]

    def call(self, x):
        return x * self.scales[0]


def test_names_of_weights_are_unique_whatever_they_were_given(tmp_path):
    layer = Scales()
    model = nn.Sequential([layer])
    model.build((None, 2))
    values = [np.full(2, i, np.float32) for i in range(4)]
    layer.set_weights(values)
    assert [name for name, _ in layer.named_weights()] == ["w", "w_1", "w_2", "w_1_1"]
    model.save_weights(tmp_path / "w.safetensors")
    layer.set_weights([np.zeros(2)] * 4)
    model.load_weights(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(layer.get_weights(), values)


def test_a_layer_is_built_once():
    layer = nn.Dense(3)
    layer.build((None, 4))
    with pytest.raises(ValueError, match=r"Dense.build: '.*' has been built for \(None, 4\): make another layer"):
        layer.build((None, 7))
    assert layer.count_params() == 15


@pytest.mark.parametrize("wrong", [np.array(["a", "b", "c"]), np.full(3, 1j)], ids=["text", "complex"])
def test_weights_are_set_all_or_not_at_all(wrong):
    layer = nn.Dense(3, input_dim=2)
    layer.build((None, 2))
    before = layer.get_weights()
    with pytest.raises(TypeError, match="set_weights: the array for bias holds .*: it must hold numbers"):
        layer.set_weights([np.ones((2, 3)), wrong])
    for array, old in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(array, old)
