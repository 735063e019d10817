"""`Model.roofline` and `Model.kernels`: work by hand, what the tables say, and that nothing is left changed."""

import re
import subprocess
import sys

import fake_gpu
import numpy as np
import pytest

from handloom import nn
from handloom.kernels import limits
from handloom.kernels.threads import THREADS_PAY
from handloom.nn import roofline
from handloom.nn.models import Sequential


@pytest.fixture(autouse=True)
def short(monkeypatch):
    for name, value in {"SAMPLES": 2, "STRETCH": 1e-5, "ROUNDS": 100, "LARGEST": 1 << 16}.items():
        monkeypatch.setattr(limits, name, value)
    monkeypatch.setattr(roofline, "STRETCH", 1e-4)


def dense():
    return Sequential([nn.Dense(64, activation="relu", input_dim=100), nn.Dense(10, activation="softmax")])


def cnn():
    return Sequential(
        [
            nn.Conv2D(32, 3, activation="relu", input_shape=(28, 28, 1)),
            nn.MaxPooling2D(),
            nn.Flatten(),
            nn.Dense(128, activation="relu"),
            nn.Dense(10, activation="softmax"),
        ]
    )


def lstm():
    return Sequential([nn.LSTM(64, return_sequences=True, input_shape=(None, 100)), nn.Dense(10)])


class Net(nn.Model):
    """Any Python: a loop, a layer that is called twice, one that is left out, arithmetic in between."""

    def __init__(self):
        super().__init__()
        self.twice, self.unused, self.block = nn.Dense(3, activation="tanh"), nn.Dense(9), Sequential([nn.Dense(2)])

    def call(self, x):
        for _ in range(2):
            x = x + self.twice(x)
        return self.block(x)


def work(model, batch, **options):
    """(kind, way, FLOP, bytes) of each row."""
    return [(row.kind, row.way, row.flops, row.bytes) for row in model.roofline(batch, **options).rows]


class TestWork:
    """FLOP and bytes, by hand."""

    def test_dense(self):
        model = Sequential([nn.Dense(3, activation="relu", input_dim=5), nn.Dense(2)])
        x, w, b, y = 4 * 5, 5 * 3, 3, 4 * 3
        v, c, z = 3 * 2, 2, 4 * 2
        assert work(model, 4) == [
            ("Dense", "forward", 2 * 4 * 5 * 3, 4 * (x + w + b + y)),
            ("Dense", "backward", 2 * 4 * 5 * 3, 4 * (y + x + w + y + w + b)),  # no gradient of the data
            ("Dense", "forward", 2 * 4 * 3 * 2, 4 * (y + v + c + z)),
            ("Dense", "backward", 2 * 2 * 4 * 3 * 2, 4 * (z + y + v + y + v + c)),  # z is not read: no activation
        ]

    def test_more_axes_and_double_precision(self):
        model = Sequential([nn.Dense(2, use_bias=False, input_shape=(7, 3), dtype="float64")])
        assert work(model, 2)[0] == ("Dense", "forward", 2 * 14 * 3 * 2, 8 * (42 + 6 + 28))

    def test_convolutions_and_what_is_frozen(self):
        model = Sequential(
            [
                nn.Conv2D(4, (2, 3), strides=(2, 1), padding="same", input_shape=(5, 6, 2)),
                nn.Conv2D(4, 2, groups=2, use_bias=False, trainable=False),
            ]
        )
        x, w, b, y = 3 * 5 * 6 * 2, 2 * 3 * 2 * 4, 4, 3 * 3 * 6 * 4
        v, z = 2 * 2 * 2 * 4, 3 * 2 * 5 * 4
        assert work(model, 3) == [
            ("Conv2D", "forward", 2 * 6 * 2 * y, 4 * (x + w + b + y)),
            ("Conv2D", "backward", 2 * 6 * 2 * y, 4 * (y + x + w + w + b)),
            ("Conv2D", "forward", 2 * 4 * 2 * z, 4 * (y + v + z)),
            ("Conv2D", "backward", 2 * 4 * 2 * z, 4 * (z + y + v + y)),  # of the data alone
        ]

    def test_pooling_activations_and_dropout(self):
        model = Sequential(
            [
                nn.Conv2D(2, 1, variant="direct", input_shape=(6, 6, 1)),
                nn.MaxPooling2D(),
                nn.Activation("tanh"),
                nn.Dropout(0.5),
                nn.AveragePooling2D(2, strides=1),
                nn.GlobalMaxPooling2D(),
            ]
        )
        x, y, z, g = 3 * 6 * 6 * 2, 3 * 3 * 3 * 2, 3 * 2 * 2 * 2, 3 * 2
        assert work(model, 3)[2:] == [
            ("MaxPooling2D", "forward", 4 * y, 4 * (x + y)),
            ("MaxPooling2D", "backward", y, 4 * (y + x) + y),  # one byte says where a maximum stood
            ("Activation", "forward", y, 4 * 2 * y),
            ("Activation", "backward", y, 4 * 3 * y),
            ("Dropout", "forward", y, 4 * 2 * y),
            ("Dropout", "backward", y, 4 * 2 * y),
            ("AveragePooling2D", "forward", 4 * z, 4 * (y + z)),
            ("AveragePooling2D", "backward", 4 * z, 4 * (z + y)),
            ("GlobalMaxPooling2D", "forward", z, 4 * (z + g)),
            ("GlobalMaxPooling2D", "backward", g, 4 * (g + z) + g),
        ]

    def test_a_maximum_that_its_convolution_computes(self):
        """What lies between the two is not read or written: forward y, backward dy and a byte for each y."""
        model = Sequential([nn.Conv2D(2, 3, activation="relu", input_shape=(8, 8, 1)), nn.MaxPooling2D()])
        x, z, y, w = 3 * 8 * 8, 3 * 6 * 6 * 2, 3 * 3 * 3 * 2, 3 * 3 * 2
        assert work(model, 3) == [
            ("Conv2D", "forward", 2 * 9 * z, 4 * (x + w + 2 + y)),
            ("Conv2D", "backward", 2 * 9 * z, 4 * (y + x + w + y + w + 2) + y),
        ]

    def test_recurrent(self):
        n, t, i, h = 2, 5, 3, 4
        model = Sequential([nn.LSTM(h, return_sequences=True, input_shape=(t, i)), nn.LSTM(h)])
        first, _, second, back = work(model, n)
        products = 2 * n * t * 4 * h
        weights = i * 4 * h + h * 4 * h + 4 * h
        assert first == ("LSTM", "forward", products * (i + h), 4 * (n * t * i + weights + n * t * h))
        weights = 2 * h * 4 * h + 4 * h
        assert second == ("LSTM", "forward", products * (h + h), 4 * (n * t * h + weights + n * h))
        saved = n * t * 2 * h + n * t * 4 * h + n * (t + 1) * h + 2 * h * 4 * h
        assert back == ("LSTM", "backward", 2 * second[2], 4 * (n * h + saved + n * t * h + weights))
        layer = model.layers[0]
        assert layer.backward_flops((n, t, i), (False, True)) == products * (i + 2 * h)
        assert layer.backward_flops((n, t, i), (True, False)) == products * (i + h)

    def test_layers_of_ones_own(self):
        class Scale(nn.Layer):
            def build(self, input_shape):
                self.by = self.add_weight(input_shape[-1:], "ones")

            def call(self, x):
                return x * self.by

            def flops(self, input_shape):
                return int(np.prod(input_shape))

        assert work(Sequential([Scale()]), 2, input_shape=(3,)) == [
            ("Scale", "forward", 6, 4 * (6 + 3 + 6)),
            ("Scale", "backward", 6, 4 * (6 + 6 + 6 + 3 + 3)),  # arithmetic on tensors saves all three
        ]
        Scale.flops = nn.Layer.flops
        report = Sequential([Scale()], name="mine").roofline(2, input_shape=(3,))
        assert [row.flops for row in report.rows] == [0, 0] and all(row.limit == "L1" for row in report.rows)
        text = "Roofline.plot: no layer of 'mine' counts FLOP: there is nothing to draw"
        with pytest.raises(ValueError, match=f"^{text}$"):
            report.plot("never.png")


class TestRows:
    @pytest.mark.parametrize(
        "build, kinds, shape",
        [
            (dense, ["Dense", "Dense"], (8, 100)),
            (cnn, ["Conv2D", "Dense", "Dense"], (8, 28, 28, 1)),
            (lstm, ["LSTM", "Dense"], (8, 50, 100)),
        ],
    )
    def test_of_the_three_programs(self, build, kinds, shape):
        report = build().roofline(8)
        assert report.input_shape == shape
        assert [(row.kind, row.way) for row in report.rows] == [
            (kind, way) for kind in kinds for way in ("forward", "backward")
        ]
        for row in report.rows:
            assert row.limit in ("multiply-adds", *limits.cache_sizes(), "memory")
            assert row.intensity == row.flops / row.bytes > 0
            least, limit = limits.attainable(report.limits, report.threads, row.flops, row.bytes)
            assert row.share == pytest.approx(least * 1e3 / row.milliseconds) and row.limit == limit
            assert np.isfinite(row.share) and row.share > 0

    def test_of_models_inside_and_any_python(self):
        for model in (Net(), Sequential([Net()])):
            kinds = [(row.layer, row.kind, row.way) for row in model.roofline(2, input_shape=(3,)).rows]
            net = model if isinstance(model, Net) else model.layers[0]
            twice, last = net.twice.name, net.block.layers[0].name
            assert kinds == [(name, "Dense", way) for name in (twice, twice, last) for way in ("forward", "backward")]

    def test_of_a_model_without_layers(self):
        class Double(nn.Model):
            def call(self, x):
                return x * 2

        (row,) = Double().roofline(2, input_shape=(3,)).rows
        assert (row.kind, row.way, row.flops, row.bytes) == ("Double", "forward", 0, 4 * 12)

    def test_of_several_inputs_and_outputs_inside(self):
        class Steps(nn.Model):
            def __init__(self):
                super().__init__()
                self.first, self.second = nn.LSTM(3, return_state=True, return_sequences=True), nn.LSTM(3)

            def call(self, x):
                y, h, c = self.first(x)
                return self.second(y, initial_state=(h, c))

        rows = Steps().roofline(2, input_shape=(4, 5)).rows
        assert [row.way for row in rows] == ["forward", "backward"] * 2
        state = 2 * 3
        assert rows[2].bytes == 4 * (2 * 4 * 3 + 2 * state + (6 * 12 + 12) + state)

    def test_the_shape_is_the_declared_or_built_one_or_given(self):
        model = Sequential([nn.Dense(2)])
        model(np.zeros((1, 3)))
        assert model.roofline(4).input_shape == (4, 3)
        assert lstm().roofline(1, input_shape=(7, 100)).input_shape == (1, 7, 100)
        assert lstm().kernels().input_shape == (None, 50, 100)


def everything(model):
    """What training can change, as bytes and numbers."""
    return [
        [weight.numpy().tobytes() for weight in model.weights],
        [id(weight.data) for weight in model.weights],
        [None if weight.grad is None else (id(weight.grad), weight.grad.tobytes()) for weight in model.weights],
        [{name: id(value) for name, value in vars(layer).items()} for layer in model.all_layers()],
        [layer.training for layer in model.all_layers()],
    ]


class TestNothingIsChanged:
    def model(self):
        model = Sequential([nn.Dense(6, activation="relu", input_dim=4), nn.Dropout(0.5), nn.Dense(2)])
        model.compile(optimizer="adam", loss="mse")
        return model

    def test_bit_for_bit(self):
        rng = np.random.default_rng(3)
        model = self.model()
        x, y = rng.standard_normal((20, 4)), rng.standard_normal((20, 2))
        model.fit(x, y, epochs=2, verbose=0)
        model(x, training=True).sum().backward()
        model.layers[2].training = True
        before = everything(model)
        assert before[2][0] is not None
        for look in (model.roofline, model.kernels):
            look(3)
            assert everything(model) == before
            with nn.no_grad():
                assert len(look(3).rows) == {"roofline": 6, "kernels": 3}[look.__name__]
                assert not (model(x) * 1).requires_grad
            assert everything(model) == before

    def test_training_goes_on_as_if_nobody_had_looked(self):
        rng = np.random.default_rng(3)
        x, y, ends = rng.standard_normal((20, 4)), rng.standard_normal((20, 2)), []
        for look in (False, True):
            nn.set_random_seed(5)
            model = self.model()
            for _ in range(2):
                model.fit(x, y, epochs=2, batch_size=4, verbose=0)
                if look:
                    model.roofline(4)
                    model.kernels()
            another = Sequential([nn.Dense(2, input_dim=2)])  # drawn from the next stream
            ends.append(model.get_weights() + another.get_weights())
        for before, after in zip(*ends, strict=True):
            np.testing.assert_array_equal(before, after)

    def test_what_a_layer_changes_itself(self):
        class Average(nn.Layer):
            """Its weight and its attribute change whenever it trains."""

            count = 0

            def build(self, input_shape):
                self.mean = self.add_weight(input_shape[-1:], "zeros", trainable=False)

            def call(self, x, training=False):
                if training:
                    self.count = self.count + 1
                    self.mean.assign(self.mean.data + x.data.mean(0))
                return x - self.mean

        model = Sequential([nn.Dense(3, input_dim=2), Average()])
        model.roofline(4)
        model.kernels(4)
        assert model.layers[1].count == 0
        np.testing.assert_array_equal(model.layers[1].mean.data, 0)

    def test_after_an_error(self):
        class Broken(nn.Layer):
            def call(self, x, training=False):
                if training:
                    raise RuntimeError("broken")
                return x * 1

        model = Sequential([nn.Dropout(0.5, input_shape=(3,)), nn.Dense(2), Broken()])
        before = everything(model)
        for look in (model.roofline, model.kernels):
            with pytest.raises(RuntimeError, match="broken"):
                look(2)
            assert everything(model) == before

    def test_a_model_that_is_not_built_is_built(self):
        net = Net()
        net.kernels(input_shape=(3,))
        assert net.twice.built and net.block.built and not net.unused.built
        assert "call" not in vars(net.twice)


class TestErrors:
    @pytest.mark.parametrize("look", ["roofline", "kernels"])
    def test_messages(self, look):
        def refused(error, text, model, *args, **options):
            with pytest.raises(error, match=f"^{re.escape(f'{look}: {text}')}$"):
                getattr(model, look)(*args, **options)

        refused(ValueError, "batch must be a positive integer, got 0", dense(), 0)
        refused(TypeError, "batch must be a positive integer, got 'a'", dense(), "a")
        refused(TypeError, "input_shape must be a tuple such as (28, 28, 1), got 5", dense(), 1, input_shape=5)
        refused(
            ValueError,
            "the shape of an input of 'late' is not known: pass it without the batch axis, for example "
            "input_shape=(28, 28, 1), or call the model once",
            Sequential([nn.Dense(2)], name="late"),
        )

        class Sum(nn.Model):
            def call(self, pair):
                return pair[0] + pair[1]

        model = Sum(name="two")
        model((np.ones((2, 3)), np.ones((2, 3))))
        refused(
            TypeError,
            "'two' was built for several inputs, ((None, 3), (None, 3)): it must take one, ask the models inside it "
            "one by one",
            model,
        )

    def test_an_input_that_does_not_fit_is_the_layers_error(self):
        with pytest.raises(ValueError, match="dense: x is"):
            dense().roofline(2, input_shape=(99,))

    def test_limits_are_those_of_a_cpu(self, monkeypatch):
        fake_gpu.install(monkeypatch, fake_gpu.Driver())
        fake_gpu.install_cupy(monkeypatch)
        model = Sequential([nn.Dense(2, input_dim=3)], name="there", device="cuda")
        text = "roofline: 'there' is on cuda:0: limits are measured on CPUs alone, move the model with its to('cpu')"
        with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
            model.roofline()


class TestRoofline:
    def test_prints_a_table(self, capsys):
        layers = [nn.Dense(3, input_dim=5, name="first"), nn.Flatten(), nn.Dense(2, name="last")]
        model = Sequential(layers, name="mine")
        report = model.roofline(4)
        print(report)
        text = capsys.readouterr().out
        assert text == f"{report!r}\n" == f"{report}\n"
        assert text.startswith('Roofline of "mine", input (4, 5)')
        lines = [line.split() for line in report.text(120).splitlines()]
        for cells in ("first (Dense) forward 120 200 0.6", "backward 120", "last (Dense) forward 48 112"):
            assert any(line[: cells.count(" ") + 1] == cells.split() for line in lines), cells
        assert "Flatten" not in text
        for level in limits.cache_sizes():
            assert f"{level} " in text

    @pytest.mark.parametrize("width", [40, 79, 200])
    def test_nothing_is_lost_at_any_width(self, width):
        report = cnn().roofline(2)
        text = report.text(width)
        assert max(map(len, text.splitlines())) <= width
        wide, narrow = (sorted(re.sub(r"[\s─]", "", string)) for string in (report.text(200), text))
        assert wide == narrow

    def test_short_numbers(self):
        assert [roofline._short(number) for number in (0, 999, 1000, 12_345_678, 5 * 10**12)] == [
            "0", "999", "1.0k", "12.3M", "5.0T",
        ]  # fmt: skip

    def test_draws_a_png(self, tmp_path):
        image = pytest.importorskip("matplotlib.image")
        cnn().roofline(2).plot(tmp_path / "roofline.png")
        pixels = image.imread(tmp_path / "roofline.png")
        assert pixels.shape[:2] == (600, 1080)
        assert (pixels[..., :3] < 0.9).any()

    def test_leaves_matplotlibs_global_state_alone(self, tmp_path):
        pytest.importorskip("matplotlib")
        code = (
            "import sys; from handloom.nn.roofline import Cost, Roofline; assert 'matplotlib' not in sys.modules\n"
            "found = {'multiply-adds, GFLOP/s': {1: 100.0}, 'copy, GB/s': {'L1': {1: 50.0}, 'memory': {1: 5.0}}}\n"
            "row = Cost('a', 'Dense', 'forward', 100, 10, 0.1, 'L1', 0.5)\n"
            f"Roofline('m', (1, 2), [row], found, 1, 4).plot({str(tmp_path / 'a.png')!r})\n"
            "assert 'matplotlib.pyplot' not in sys.modules\n"
        )
        subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
        assert (tmp_path / "a.png").stat().st_size > 1000

    def test_double_precision_has_half_the_peak(self):
        found = {"multiply-adds, GFLOP/s": {1: 100.0}}
        assert [roofline.Roofline("m", (1,), [], found, 1, size).peak for size in (4, 8)] == [100, 50]
        model = Sequential([nn.Dense(2, input_dim=3, dtype="float64")])
        assert model.roofline(2).itemsize == 8

    def test_without_matplotlib_names_the_extra(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
        with pytest.raises(ModuleNotFoundError, match=re.escape("needs matplotlib: pip install 'handloom[plot]'")):
            dense().roofline(2).plot(tmp_path / "roofline.png")


def uses(report):
    return [(row.kind, row.kernel, row.variant, row.why) for row in report.rows]


LAST, NONE = "the default: the last rung of the ladder", "no kernel: an operator of the arrays"


class TestKernels:
    def test_of_a_cnn(self):
        model = cnn()
        assert uses(model.kernels()) == [
            ("Conv2D", "conv2d_max_pool2d", "winograd", LAST),
            ("Flatten", "reshape", "", NONE),
            ("Dense", "dense", "threaded", LAST),
            ("Dense", "dense", "threaded", LAST),
            ("Dense", "softmax", "threaded", LAST),
        ]
        assert all(row.device == "cpu" and row.threads is None for row in model.kernels().rows)

    def test_of_what_is_asked_for(self):
        model = Sequential(
            [
                nn.Conv2D(2, 3, variant="im2col", input_shape=(8, 8, 1)),
                nn.AveragePooling2D(variant="naive"),
                nn.GlobalMaxPooling2D(),
                nn.Dense(3, activation="sigmoid", variant="packed"),
                nn.Dropout(0.5),
                nn.Activation("linear"),
            ]
        )
        assert uses(model.kernels()) == [
            ("Conv2D", "conv2d", "im2col", "asked for"),
            ("AveragePooling2D", "avg_pool2d", "naive", "asked for"),
            ("GlobalMaxPooling2D", "global_max_pool2d", "simd", LAST),
            ("Dense", "dense", "packed", "asked for"),
            ("Dense", "sigmoid", "", "it has no variants"),
            ("Dropout", "dropout", "", "it has no variants"),
            ("Activation", "none", "", "the output is the input"),
        ]

    def test_of_recurrent_layers_and_any_python(self):
        assert uses(lstm().kernels()) == [("LSTM", "lstm", "fused", LAST), ("Dense", "dense", "threaded", LAST)]
        model = Sequential([nn.LSTM(3, go_backwards=True, variant="steps", trainable=False, input_shape=(4, 2))])
        assert uses(model.kernels()) == [("LSTM", "getitem", "", NONE), ("LSTM", "lstm", "steps", "asked for")]
        assert [row.kernel for row in Net().kernels(input_shape=(3,)).rows] == ["dense"] * 3

    def test_whether_threads_have_work_enough(self):
        """2 * 64 * 100 operations a row, from a million on."""
        model = Sequential([nn.Dense(64, input_dim=100, name="first"), nn.Dense(1)])
        enough = -(-THREADS_PAY // (2 * 64 * 100))
        assert [row.threads for row in model.kernels(enough).rows] == [True, False]
        assert [row.threads for row in model.kernels(enough // 2).rows] == [False, False]
        serial = Sequential([nn.Dense(64, input_dim=100, variant="simd")])
        assert [row.threads for row in serial.kernels(enough).rows] == [False]

    def test_prints_a_table(self):
        model = Sequential([nn.Dense(3, activation="softmax", input_dim=5, name="first")], name="mine")
        text = " ".join(model.kernels().text(150).split())
        assert text.startswith('Kernels of "mine", input (None, 5)')
        assert text.count("first (Dense)") == 1 and "softmax" in text
        note = "Threads pay from 1,000,000 operations of a kernel on, on a CPU"
        assert f"{note}: kernels(batch=32) says which layers reach that" in text
        assert not re.search(r"\b(yes|no)\b", text)
        text = " ".join(model.kernels(batch=2).text(150).split())
        assert f"{note}; does any of the layer's reach that?" in text
        assert len(re.findall(r"\bno\b", text)) == 1
