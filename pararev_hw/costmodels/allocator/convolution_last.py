"""Memory inside a convolution on a CPU whose images or weights lie channels last.

All tensors are brought into that order first; images then stay as they are, and the weights are packed for the kernel:

    forward     w channels last, scratch, w'
    gradient    w channels last, w', scratch; then dw in the kernel's layout, plain and channels last
    transposed  the gradient of the convolution that it undoes, and its gradient that convolution

Kernels that multiply small matrices (brgemm) compute from AVX2 on; kernels of blocked layouts the gradients of weights,
most groups and whole channels (every group is padded to whole blocks); products over unfolded images the rest.
Found as in `convolution`, under AVX-512, AVX2 and SSE4.1.
"""

from __future__ import annotations

from dataclasses import replace

from pararev_hw.costmodels.allocator.convolution_kernels import (
    SCRATCH_ALIGNED,
    Blocked,
    data_kernel,
    forward_kernel,
    gathered_bytes,
    most_scratch,
    strided_scratch,
    unfolded_bytes,
    weight_kernel,
)
from pararev_hw.costmodels.allocator.convolution_sizes import Convolution
from pararev_hw.costmodels.allocator.unfolded_blocks import unfolded_at_once_last
from pararev_hw.devices.instruction_sets import InstructionSet

_PRODUCTS_SCRATCH = 8216  # of the kernels that multiply small matrices, at stride 1


def copied_last(conv: Convolution, back: bool, last: tuple[int, ...]) -> int:
    """What is brought into that order of the inputs of a convolution or of its gradient."""
    inputs = [_y_copy(conv) if conv.transposed else _x_copy(conv), _weights_copy(conv)]
    if back:
        inputs.insert(0, _x_copy(conv) if conv.transposed else _y_copy(conv))
    return sum(size for k, size in enumerate(inputs) if k not in last)


def last_forward(conv: Convolution, isa: InstructionSet, cache_bytes: int) -> int:
    """Beside y and copied inputs."""
    if not conv.transposed:
        return _forward(conv, isa, cache_bytes)
    if _by_products(conv, isa):
        return _data(conv, isa)
    bias = 4 * conv.x_bytes() // conv.item + SCRATCH_ALIGNED if conv.bias else 0  # added apart, in float32
    return _data(conv, isa) + bias + SCRATCH_ALIGNED


def last_gradients(conv: Convolution, isa: InstructionSet, cache_bytes: int, needed: tuple[bool, bool]) -> int:
    """Beside dx and dw, as far as they are `needed`, and copied inputs."""
    dx, dw = needed
    data = 0
    if dx:
        data = _forward(conv, isa, cache_bytes) if conv.transposed else _data(conv, isa)
    return max(data - conv.w_bytes(), _weights(conv, isa)) if dw else data


def _weights_copy(conv: Convolution) -> int:
    """Weights of one tap, or of one channel for each output, lie in either order."""
    within = conv.y_group if conv.transposed else conv.x_group
    return 0 if conv.taps == 1 or within == 1 else conv.w_bytes()


def _x_copy(conv: Convolution) -> int:
    """Images of one channel or of one pixel lie in either order, too."""
    return 0 if 1 in (conv.x_channels, conv.x_pixels) else conv.x_bytes()


def _y_copy(conv: Convolution) -> int:
    return 0 if 1 in (conv.y_channels, conv.y_pixels) else conv.y_bytes()


def _forward(conv: Convolution, isa: InstructionSet, cache_bytes: int) -> int:
    """Packed weights and scratch while y is made from x."""
    if conv.depthwise:
        return conv.w_bytes(1, isa.channels)
    if _by_products(conv, isa):
        return _packed_weights(conv, isa, conv.y_group, conv.result[-1]) + _PRODUCTS_SCRATCH
    if isinstance(forward_kernel(conv, isa, cache_bytes), Blocked):
        return _blocked_weights(conv, isa)
    columns = unfolded_bytes(conv)
    if columns and len(conv.kernel) < 3:
        columns = conv.item * conv.taps * conv.x_group * unfolded_at_once_last(conv, isa.lanes, cache_bytes)
    return conv.w_bytes() + _scratch(conv, (columns, _image(conv)))


def _data(conv: Convolution, isa: InstructionSet) -> int:
    """Packed weights and scratch while the gradient of x is made from that of y."""
    if conv.depthwise:
        return conv.w_bytes(1, isa.channels)
    if _by_products(conv, isa) and not (conv.strided and conv.dilated):
        scratch = strided_scratch(conv) if conv.strided else _PRODUCTS_SCRATCH + SCRATCH_ALIGNED
        return _packed_weights(conv, isa, conv.x_group, conv.image[-1]) + scratch
    if isinstance(data_kernel(_whole(conv, isa), isa), Blocked):
        return _blocked_weights(conv, isa)
    return conv.w_bytes() + _scratch(conv, (unfolded_bytes(conv), _image(conv) if conv.groups > 1 else 0))


def _weights(conv: Convolution, isa: InstructionSet) -> int:
    """Beside the gradient of w as it is given, while it is made."""
    w = conv.w_bytes()
    channels = -(-conv.x_channels // isa.channels) * isa.channels
    padded = replace(conv, groups=channels, x_channels=channels, y_channels=channels)
    if conv.depthwise and isinstance(weight_kernel(padded, isa), Blocked):
        return conv.w_bytes(1, isa.channels) + w
    whole = _whole(conv, isa)
    kernel = weight_kernel(whole, isa)
    if not isinstance(kernel, Blocked):
        return max(_scratch(conv, (4 * w // conv.item * 4, unfolded_bytes(conv), _image(conv))), 2 * w)
    packed = whole.w_bytes(kernel.w_x, kernel.w_y) if conv.groups == 1 else whole.w_bytes()
    if not conv.half:
        return packed - w + max(gathered_bytes(conv, isa), 2 * w)
    images = (whole.x_bytes(kernel.w_x) + whole.y_bytes(kernel.w_y)) // conv.batch  # transposed, one at a time
    return packed - w + max(4 * packed // conv.item + images, 2 * w)


def _by_products(conv: Convolution, isa: InstructionSet) -> bool:
    return isa >= InstructionSet.AVX2 and not conv.depthwise and (conv.groups == 1 or isa < InstructionSet.AVX512_CORE)


def _packed_weights(conv: Convolution, isa: InstructionSet, channels: int, width: int) -> int:
    """The weights in blocks of those channels of a group, for a result so wide: four registers at a time, or as few as
    waste less; of narrow results three with AVX2, two with AVX-512."""
    four, three, two = 4 * isa.channels, 3 * isa.channels, 2 * isa.channels
    wide = isa >= InstructionSet.AVX512_CORE
    if channels <= two:
        padded = -(-channels // isa.channels) * isa.channels
    elif width <= (9 if wide else 8) and conv.taps > 1:
        block = two if wide else three
        padded = -(-channels // block) * block
    elif channels <= four:
        padded = -(-channels // isa.channels) * isa.channels
    else:
        padded = -(-channels // four) * four
        if channels <= 3 * three:
            padded = min(padded, -(-channels // three) * three)
        elif wide:
            padded = min(padded, -(-channels // two) * two)
    return conv.w_bytes() // channels * padded


def _blocked_weights(conv: Convolution, isa: InstructionSet) -> int:
    """The weights in blocks, every group by itself; AVX-512 takes shorter registers for small groups."""
    block = isa.channels
    if conv.groups > 1 and max(conv.x_group, conv.y_group) < block:
        fitting = (b for b in (8, 4) if b < block and conv.x_group % b == conv.y_group % b == 0)
        return conv.w_bytes() if any(fitting) else _whole(conv, isa).w_bytes()
    flat = conv.groups == 1 and conv.x_channels < block
    return conv.w_bytes(1 if flat else block, block) if conv.groups == 1 else _whole(conv, isa).w_bytes()


def _whole(conv: Convolution, isa: InstructionSet) -> Convolution:
    """With as many channels in each group as whole blocks have, to which groups are padded from AVX2 on."""
    if conv.groups == 1 or isa < InstructionSet.AVX2:
        return conv
    x_group, y_group = (-(-n // isa.channels) * isa.channels for n in (conv.x_group, conv.y_group))
    return replace(conv, x_channels=conv.groups * x_group, y_channels=conv.groups * y_group)


def _image(conv: Convolution) -> int:
    """One group of one image, transposed."""
    return conv.item * conv.x_pixels * conv.x_group


def _scratch(conv: Convolution, buffers: tuple[int, ...]) -> int:
    """Of a product over unfolded images; where it would be many times the tensors, a kernel without any is taken."""
    size = sum(b + SCRATCH_ALIGNED for b in buffers if b)
    return 0 if size > most_scratch(conv) else size
