"""Residual units as text, on which the placements of the SE paper (arXiv 1709.01507, Fig. 5) show how they differ."""

BOTTLENECK = """
x = input() : 64x8x8
conv1 = conv(x) [1x1 s1 p0 64->16] @b.conv1 : 16x8x8
bn1 = norm(conv1) @b.bn1 : 16x8x8
act1 = act(bn1) @b.act1 : 16x8x8
conv2 = conv(act1) [3x3 s1 p1 16->16] @b.conv2 : 16x8x8
bn2 = norm(conv2) @b.bn2 : 16x8x8
act2 = act(bn2) @b.act2 : 16x8x8
conv3 = conv(act2) [1x1 s1 p0 16->64] @b.conv3 : 64x8x8
bn3 = norm(conv3) @b.bn3 : 64x8x8
add = add(bn3, x) @b : 64x8x8
act3 = act(add) @b.act3 : 64x8x8
next = conv(act3) [1x1 s1 p0 64->16] @next.conv1 : 16x8x8
"""

BASIC_WITH_PROJECTION = """
x = input() : 16x8x8
conv1 = conv(x) [3x3 s2 p1 16->32] @b.conv1 : 32x4x4
bn1 = norm(conv1) @b.bn1 : 32x4x4
act1 = act(bn1) @b.act1 : 32x4x4
conv2 = conv(act1) [3x3 s1 p1 32->32] @b.conv2 : 32x4x4
bn2 = norm(conv2) @b.bn2 : 32x4x4
down = conv(x) [1x1 s2 p0 16->32] @b.downsample.0 : 32x4x4
downbn = norm(down) @b.downsample.1 : 32x4x4
add = add(bn2, downbn) @b : 32x4x4
act2 = act(add) @b.act2 : 32x4x4
next = conv(act2) [3x3 s1 p1 32->32] @next.conv1 : 32x4x4
"""

PREACTIVATION = """
x = input() : 16x8x8
bn1 = norm(x) @b.bn1 : 16x8x8
act1 = act(bn1) @b.act1 : 16x8x8
conv1 = conv(act1) [3x3 s1 p1 16->16] @b.conv1 : 16x8x8
bn2 = norm(conv1) @b.bn2 : 16x8x8
act2 = act(bn2) @b.act2 : 16x8x8
conv2 = conv(act2) [3x3 s1 p1 16->16] @b.conv2 : 16x8x8
add = add(x, conv2) @b : 16x8x8
nextbn = norm(add) @next.bn1 : 16x8x8
nextadd = other(add) @next : 16x8x8
"""

INVERTED_RESIDUAL = """
x = input() : 16x8x8
expand = conv(x) [1x1 s1 p0 16->96] @b.conv_pw : 96x8x8
bn1 = norm(expand) @b.bn1 : 96x8x8
act1 = act(bn1) @b.bn1.act : 96x8x8
depthwise = conv(act1) [3x3 s1 p1 g96 96->96] @b.conv_dw : 96x8x8
bn2 = norm(depthwise) @b.bn2 : 96x8x8
act2 = act(bn2) @b.bn2.act : 96x8x8
project = conv(act2) [1x1 s1 p0 96->16] @b.conv_pwl : 16x8x8
bn3 = norm(project) @b.bn3 : 16x8x8
drop = pass(bn3) @b.drop_path : 16x8x8
add = add(drop, x) @b : 16x8x8
next = conv(add) [1x1 s1 p0 16->96] @next.conv_pw : 96x8x8
"""

SCALED_RESIDUAL = """
x = input() : 64x8x8
left = conv(x) [1x1 s1 p0 64->16] @b.branch0 : 16x8x8
mid = conv(x) [1x1 s1 p0 64->16] @b.branch1.0 : 16x8x8
right = conv(mid) [3x3 s1 p1 16->16] @b.branch1.1 : 16x8x8
cat = concat(left, right) @b : 32x8x8
up = conv(cat) [1x1 s1 p0 32->64] @b.conv2d : 64x8x8
scaled = mul(up) @b : 64x8x8
add = add(scaled, x) @b : 64x8x8
relu = act(add) @b.relu : 64x8x8
next = conv(relu) [1x1 s1 p0 64->16] @next : 16x8x8
"""

LAYER_SCALE = """
x = input() : 16x8x8
depthwise = conv(x) [7x7 s1 p3 g16 16->16] @b.conv_dw : 16x8x8
norm = norm(depthwise) @b.norm : 16x8x8
fc1 = conv(norm) [1x1 s1 p0 16->64] @b.mlp.fc1 : 64x8x8
gelu = act(fc1) @b.mlp.act : 64x8x8
fc2 = conv(gelu) [1x1 s1 p0 64->16] @b.mlp.fc2 : 16x8x8
gamma = other() @b
shaped = reshape(gamma) @b
scaled = mul(fc2, shaped) @b : 16x8x8
drop = pass(scaled) @b.drop_path : 16x8x8
add = add(drop, x) @b : 16x8x8
next = conv(add) [7x7 s1 p3 g16 16->16] @next : 16x8x8
"""

NESTED = """
x = input() : 8x8x8
a = conv(x) [3x3 s1 p1 8->8] @b.a : 8x8x8
b = conv(a) [3x3 s1 p1 8->8] @b.b : 8x8x8
inner = add(b, a) @b.inner : 8x8x8
outer = add(x, inner) @b : 8x8x8
next = conv(outer) [3x3 s1 p1 8->8] @next : 8x8x8
"""

THREE_WAY = """
x = input() : 8x8x8
a = conv(x) [1x1 s1 p0 8->8] @b.a : 8x8x8
b1 = conv(x) [3x3 s1 p1 8->8] @b.b1 : 8x8x8
b2 = conv(b1) [3x3 s1 p1 8->8] @b.b2 : 8x8x8
first = add(x, a) @b : 8x8x8
second = add(first, b2) @b : 8x8x8
next = conv(second) [3x3 s1 p1 8->8] @next : 8x8x8
"""

ENCODER_DECODER = """
x = input() : 16x8x8
down = conv(x) [3x3 s2 p1 16->16] @down : 16x4x4
deep = conv(down) [3x3 s1 p1 16->16] @deep : 16x4x4
up = other(deep) @up : 16x8x8
add = add(up, x) @join : 16x8x8
head = conv(add) [1x1 s1 p0 16->4] @head : 4x8x8
"""
