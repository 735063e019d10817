"""An LSTM that reads a handwritten digit row by row, and says after the last of 8 rows which one it was."""

import argparse

from handloom.nn.datasets import digits
from handloom.nn.layers import LSTM, Dense
from handloom.nn.models import Sequential
from handloom.nn.optimizers import Adam
from handloom.nn.utils import set_random_seed


def main(argv=None) -> list[float]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--smoke", action="store_true", help="two epochs")
    options = parser.parse_args(argv)
    set_random_seed(1)

    (x_train, y_train), (x_test, y_test) = digits.load_data()
    x_train, x_test = x_train / 16, x_test / 16  # (N, 8, 8): 8 steps of 8 pixels

    model = Sequential(device=options.device)
    model.add(LSTM(units=64, input_shape=(None, 8)))  # its last state, (N, 64)
    model.add(Dense(units=10, activation="softmax"))
    model.compile(optimizer=Adam(0.003), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(x_train, y_train, epochs=2 if options.smoke else 20)

    loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
    print(f"test accuracy {accuracy:.1%}, loss {loss:.3f}")
    # The network takes sequences of any length: what does it think after each row of the first image?
    for rows in range(1, 9):
        guess = model.predict(x_test[:1, :rows], verbose=0)[0]
        print(f"after row {rows}: a {guess.argmax()} ({guess.max():.0%})")
    return history.history["loss"]


if __name__ == "__main__":
    main()
