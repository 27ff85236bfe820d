"""Makes the ONNX files of this folder with TensorFlow, Keras and tf2onnx, which are not dependencies of this project.

    python -m venv tf && tf/bin/pip install tensorflow-cpu tf2onnx && tf/bin/python make.py

They were made with tensorflow 2.21.0, keras 3.15.1 and tf2onnx 1.17.0. `tf2onnx_se` is tf2onnx at opset 9, `keras_se`
is Keras's own export, and `tf2onnx_islands` is what tf2onnx writes before its optimizer has pushed the Transposes out.
"""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tf2onnx
import tf2onnx.convert

L = keras.layers
HERE = Path(__file__).parent


def unit(x, filters, stride, name, gated):
    y = L.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False, name=f"{name}_conv1")(x)
    y = L.ReLU(name=f"{name}_relu1")(L.BatchNormalization(name=f"{name}_bn1")(y))
    y = L.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv2")(y)
    y = L.BatchNormalization(name=f"{name}_bn2")(y)
    if gated:
        s = L.Reshape((1, 1, filters))(L.GlobalAveragePooling2D()(y))
        s = L.Conv2D(filters, 1, activation="sigmoid")(L.Conv2D(4, 1, activation="relu")(s))
        y = L.Multiply()([y, s])
    if stride != 1 or x.shape[-1] != filters:
        x = L.Conv2D(filters, 1, strides=stride, use_bias=False, name=f"{name}_down")(x)
    return L.ReLU(name=f"{name}_out")(L.Add(name=f"{name}_add")([y, x]))


def network(gated):
    image = keras.Input((32, 32, 3), name="image")
    x = L.Activation("swish", name="swish")(L.Conv2D(8, 3, padding="same", name="stem")(image))
    x = unit(unit(x, 8, 1, "a", False), 16, 2, "b", gated)
    x = L.Add(name="dwadd")([x, L.DepthwiseConv2D(3, padding="same", name="dw")(x)])
    model = keras.Model(image, L.Dense(5, name="fc")(L.GlobalAveragePooling2D(name="gap")(x)))
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            size = layer.get_weights()[0].shape
            scale, variance = rng.uniform(0.5, 1.5, size), rng.uniform(0.5, 1.5, size)
            layer.set_weights([scale, rng.normal(0, 0.2, size), rng.normal(0, 0.2, size), variance])
    return model


def convert(model, opset, path):
    signature = (tf.TensorSpec((None, 32, 32, 3), tf.float32, name="image"),)
    made, _ = tf2onnx.convert.from_function(tf.function(lambda x: model(x)), input_signature=signature, opset=opset)
    path.write_bytes(made.SerializeToString())


keras.utils.set_random_seed(0)
plain, gated = network(False), network(True)
gated(np.zeros((1, 32, 32, 3), np.float32))
gated.export(str(HERE / "keras_se.onnx"), format="onnx")
convert(gated, 9, HERE / "tf2onnx_se.onnx")
tf2onnx.convert.optimizer.optimize_graph = lambda graph, *_, **__: graph
convert(plain, 13, HERE / "tf2onnx_islands.onnx")
