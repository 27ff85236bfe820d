"""pycuda.autoprimaryctx: the primary context, current on the thread that imports it, until the program ends."""

import atexit

import pycuda.driver as cuda

cuda.init()
context = cuda.Device(0).retain_primary_context()
context.push()


def _finish_up():
    global context
    context.pop()
    context = None


atexit.register(_finish_up)
