"""The digits that ship with the package, and MNIST from a server on the loopback."""

import hashlib
import http.server
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from handloom.nn.datasets import digits, mnist


def test_digits_are_the_ones_scikit_learn_bundles():
    bundled = pytest.importorskip("sklearn.datasets").load_digits()
    with np.load(digits._FILE) as file:
        np.testing.assert_array_equal(file["images"], bundled.images)
        np.testing.assert_array_equal(file["labels"], bundled.target)


def test_digits_are_split_once_with_the_same_share_of_each():
    (x_train, y_train), (x_test, y_test) = digits.load_data()
    assert (x_train.shape, y_train.shape) == ((1438, 8, 8), (1438,))
    assert (x_test.shape, y_test.shape) == ((359, 8, 8), (359,))
    assert all(array.dtype == np.uint8 for array in (x_train, y_train, x_test, y_test))
    assert x_train.max() == x_test.max() == 16
    share = np.bincount(y_test) / (np.bincount(y_train) + np.bincount(y_test))
    assert np.abs(share - 0.2).max() < 0.003
    with np.load(digits._FILE) as file:
        assert sorted(np.concatenate([file["train"], file["test"]])) == list(range(1797))
    # These images and this order are a promise: published accuracies depend on them.
    digest = hashlib.sha256(b"".join(array.tobytes() for array in (x_train, y_train, x_test, y_test))).hexdigest()
    assert digest == "391f99a7a6a5b2127efa82df88653692982ecc93a888759f62510c24b30782a8"


def test_digits_each_call_gives_arrays_of_its_own():
    (first, _), _ = digits.load_data()
    first[:] = 0
    (second, _), _ = digits.load_data()
    assert second.any()


@pytest.mark.parametrize("size", [9, 16, 28, 33])
def test_digits_scaled_up_are_the_bilinear_interpolation(size):
    (small, labels), _ = digits.load_data()
    (large, same_labels), _ = digits.load_data(size=size)
    assert large.shape == (1438, size, size)
    assert large.dtype == np.uint8
    np.testing.assert_array_equal(labels, same_labels)
    middles = (np.arange(size) + 0.5) * 8 / size - 0.5
    for image, scaled in zip(small[:3].astype(float), large[:3]):
        rows = np.array([np.interp(middles, np.arange(8), column) for column in image.T]).T
        exact = np.array([np.interp(middles, np.arange(8), row) for row in rows])
        np.testing.assert_allclose(scaled, exact, atol=0.5 + 1e-9)


def test_digits_scaled_up_keep_a_flat_image_and_its_symmetry():
    flat = np.full((1, 8, 8), 13, np.uint8)
    np.testing.assert_array_equal(digits._scale_up(flat, 28), np.full((1, 28, 28), 13))
    image = np.random.default_rng(0).integers(0, 17, (1, 8, 8)).astype(np.uint8)
    turned = digits._scale_up(image[:, ::-1].transpose(0, 2, 1), 28)
    np.testing.assert_array_equal(turned, digits._scale_up(image, 28)[:, ::-1].transpose(0, 2, 1))


def test_digits_sizes_below_the_recorded_one_or_of_another_type_are_refused():
    with pytest.raises(ValueError, match=re.escape("digits.load_data: size must be at least 8, the size of the")):
        digits.load_data(size=7)
    with pytest.raises(TypeError, match=re.escape("digits.load_data: size must be an integer, got 28.0")):
        digits.load_data(size=28.0)


def test_digits_state_their_source_and_licence():
    note = digits._FILE.with_suffix(".txt").read_text()
    for words in ("CC BY 4.0", "https://doi.org/10.24432/C50P49", "Alpaydin", "Kaynak"):
        assert words in note
        assert words.split("/")[-1] in digits.__doc__


class _Server(http.server.BaseHTTPRequestHandler):
    """Serves the bytes of the class attribute `content`, in a way that the path names."""

    content = b""

    def do_GET(self):
        content = self.content
        if self.path == "/missing":
            return self.send_error(404)
        self.send_response(200)
        if self.path != "/short":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.path == "/whole":
            return self.wfile.write(content)
        self.wfile.write(content[: len(content) // 2])
        self.wfile.flush()
        if self.path == "/stalls":
            self.server.half_sent.set()
            self.server.released.wait(30)
        return None

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server that holds a small file in MNIST's form; `mnist` expects that file in an empty folder."""
    rng = np.random.default_rng(1)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        x_train=rng.integers(0, 256, (60, 28, 28), np.uint8),
        y_train=rng.integers(0, 10, 60, np.uint8),
        x_test=rng.integers(0, 256, (10, 28, 28), np.uint8),
        y_test=rng.integers(0, 10, 10, np.uint8),
    )
    monkeypatch.setattr(_Server, "content", buffer.getvalue())
    monkeypatch.setattr(mnist, "SHA256", hashlib.sha256(buffer.getvalue()).hexdigest())
    monkeypatch.setenv("HANDLOOM_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server) as httpd:
        httpd.half_sent, httpd.released = threading.Event(), threading.Event()
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        httpd.url = f"http://127.0.0.1:{httpd.server_port}"
        yield httpd
        httpd.released.set()
        httpd.shutdown()
        thread.join()


@pytest.fixture
def pooch():
    return pytest.importorskip("pooch", reason="needs the data extra")


def test_mnist_downloads_once_and_reads_the_kept_file_afterwards(pooch, server, tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "URL", server.url + "/whole")
    (x_train, y_train), (x_test, y_test) = mnist.load_data()
    assert (x_train.shape, y_train.shape, x_test.shape, y_test.shape) == ((60, 28, 28), (60,), (10, 28, 28), (10,))
    assert os.listdir(tmp_path) == ["mnist.npz"]
    monkeypatch.setattr(mnist, "URL", server.url + "/missing")
    monkeypatch.setitem(sys.modules, "pooch", None)  # nothing needs the extra once the file is there
    np.testing.assert_array_equal(mnist.load_data()[0][0], x_train)


def test_mnist_takes_another_name_or_an_absolute_path(pooch, server, tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "URL", server.url + "/whole")
    mnist.load_data("sub/copy.npz")
    mnist.load_data(tmp_path / "elsewhere" / "mnist.npz")
    assert (tmp_path / "sub" / "copy.npz").is_file()
    assert os.listdir(tmp_path / "elsewhere") == ["mnist.npz"]


@pytest.mark.parametrize("way", ["/missing", "/cut"])
def test_mnist_a_failed_download_says_what_to_do_and_leaves_nothing(pooch, way, server, tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "URL", server.url + way)
    with pytest.raises(ConnectionError, match="could not download .* check the network and try again, or copy"):
        mnist.load_data()
    assert os.listdir(tmp_path) == []


def test_mnist_without_a_network_says_what_to_do(pooch, server, tmp_path, monkeypatch):
    server.shutdown()
    server.server_close()
    monkeypatch.setattr(mnist, "URL", server.url + "/whole")
    with pytest.raises(ConnectionError, match=r"could not download .*\(ConnectionError\): check the network"):
        mnist.load_data()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("way", ["/whole", "/short"])
def test_mnist_a_file_with_another_hash_is_deleted(pooch, way, server, tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "URL", server.url + way)
    if way == "/whole":
        monkeypatch.setattr(mnist, "SHA256", "0" * 64)
    with pytest.raises(ValueError, match="mnist.load_data: what http.* sent is not MNIST .* and was deleted"):
        mnist.load_data()
    assert os.listdir(tmp_path) == []


def test_mnist_an_interrupted_download_leaves_nothing(pooch, server, tmp_path):
    code = (
        "from handloom.nn.datasets import mnist\n"
        f"mnist.URL, mnist.SHA256 = {server.url + '/stalls'!r}, {mnist.SHA256!r}\n"
        "mnist.load_data()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as process:
        assert server.half_sent.wait(60)
        deadline = time.monotonic() + 10
        while not os.listdir(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert os.listdir(tmp_path)  # the temporary file
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=30)[1]
    assert "KeyboardInterrupt" in errors
    assert os.listdir(tmp_path) == []


def test_mnist_leaves_a_file_that_is_something_else_alone(server, tmp_path):
    (tmp_path / "mnist.npz").write_bytes(b"my own notes")
    with pytest.raises(ValueError, match="is there but is not MNIST .*: delete it, or name another path"):
        mnist.load_data()
    assert (tmp_path / "mnist.npz").read_bytes() == b"my own notes"


def test_mnist_without_pooch_names_the_extra(server, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ModuleNotFoundError, match=re.escape("downloading needs pooch: pip install 'handloom[data]'")):
        mnist.load_data()


def test_mnist_a_folder_that_cannot_be_written_names_the_variable(pooch, server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HANDLOOM_DATA_DIR", str(tmp_path / "file"))
    with pytest.raises(OSError, match="could not write to .*: set HANDLOOM_DATA_DIR to a folder that you may write"):
        mnist.load_data()


def test_mnist_is_kept_in_the_users_cache_folder_by_default(tmp_path, monkeypatch):
    monkeypatch.delenv("HANDLOOM_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert mnist._data_folder() == tmp_path / "handloom" / "datasets"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert mnist._data_folder() == tmp_path / ".cache" / "handloom" / "datasets"
    monkeypatch.setenv("HANDLOOM_DATA_DIR", "~/data")
    assert mnist._data_folder() == tmp_path / "data"


def test_mnist_expects_the_file_that_keras_distributes():
    assert mnist.URL.endswith("/tf-keras-datasets/mnist.npz")
    assert mnist.SHA256 == "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
