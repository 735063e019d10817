"""A dense network on handwritten digits: the shortest way from arrays to a trained, saved model."""

import argparse
from pathlib import Path

from handloom.nn.datasets import digits
from handloom.nn.layers import Dense
from handloom.nn.models import Sequential, load_model
from handloom.nn.utils import set_random_seed, to_categorical


def main(argv=None) -> list[float]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--smoke", action="store_true", help="two epochs")
    parser.add_argument("--out", type=Path, help="where to save the model")
    options = parser.parse_args(argv)
    set_random_seed(1)

    (x_train, y_train), (x_test, y_test) = digits.load_data()
    x_train, x_test = (x.reshape(len(x), 64) / 16 for x in (x_train, x_test))
    y_train, y_test = to_categorical(y_train), to_categorical(y_test)

    model = Sequential(device=options.device)
    model.add(Dense(units=64, activation="relu", input_dim=64))
    model.add(Dense(units=10, activation="softmax"))
    model.summary()
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(x_train, y_train, epochs=2 if options.smoke else 20, batch_size=32)

    loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
    print(f"test accuracy {accuracy:.1%}, loss {loss:.3f}")
    if options.out:
        model.save(options.out)
        same = load_model(options.out)
        assert (same.predict(x_test, verbose=0) == model.predict(x_test, verbose=0)).all()
        print(f"saved as {options.out}")
    return history.history["loss"]


if __name__ == "__main__":
    main()
