"""A convolutional network on handwritten digits, scaled up to the 28 x 28 pixels of MNIST."""

import argparse

from handloom.nn.callbacks import EarlyStopping
from handloom.nn.datasets import digits
from handloom.nn.layers import Conv2D, Dense, Dropout, Flatten, MaxPooling2D
from handloom.nn.models import Sequential
from handloom.nn.utils import set_random_seed


def main(argv=None) -> list[float]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--smoke", action="store_true", help="two epochs on a part of the data")
    options = parser.parse_args(argv)
    set_random_seed(1)

    (x_train, y_train), (x_test, y_test) = digits.load_data(size=28)
    x_train, x_test = (x[..., None] / 16 for x in (x_train, x_test))  # (N, 28, 28, 1), from 0 to 1
    if options.smoke:
        x_train, y_train = x_train[:256], y_train[:256]

    model = Sequential(device=options.device)
    model.add(Conv2D(filters=32, kernel_size=(3, 3), activation="relu", input_shape=(28, 28, 1)))
    model.add(MaxPooling2D(pool_size=(2, 2)))
    model.add(Flatten())
    model.add(Dense(units=128, activation="relu"))
    model.add(Dropout(0.3))
    model.add(Dense(units=10, activation="softmax"))
    # Labels stay integers: the sparse loss takes them as they are.
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(
        x_train,
        y_train,
        epochs=2 if options.smoke else 20,
        validation_split=0.1,
        callbacks=[EarlyStopping(monitor="val_loss", patience=4, restore_best_weights=True)],
    )

    loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
    print(f"test accuracy {accuracy:.1%}, loss {loss:.3f}")
    return history.history["loss"]


if __name__ == "__main__":
    main()
