"""The commonest mistakes in PyTorch programs, as small programs that end in an exception.

name -> (program, words).  torch's class and message are recorded in fixtures/mistakes.json by
fixtures/make_mistakes.py.  Weft's class must be torch's or one derived from it, and its message
torch's own or else one in which every one of `words` occurs: op, argument, expected, actual.
"""

# ruff: noqa: E501 (a program stays on one line where it can)

PRELUDE = """
import copy, io, pickle
import torch
from torch import nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset, Subset, random_split
"""

SHAPES = {
    "linear_features": ("nn.Linear(4, 2)(torch.ones(3, 5))", "5 4"),
    "linear_features_3d": ("nn.Linear(4, 2)(torch.ones(2, 3, 5))", "5 4"),
    "linear_vector": ("nn.Linear(4, 2)(torch.ones(5))", "5 4"),
    "linear_flatten": (
        "nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(10, 2))(torch.ones(1, 1, 8, 8))",
        "72 10",
    ),
    "linear_functional": ("F.linear(torch.ones(2, 3), torch.ones(4, 5))", "3 5"),
    "conv_channels": (
        "nn.Conv2d(3, 8, 3)(torch.ones(1, 1, 8, 8))",
        "weight [8, 3, 3, 3] input [1, 1, 8, 8] 3 1",
    ),
    "conv_channels_last": (
        "nn.Conv2d(3, 8, 3)(torch.ones(1, 8, 8, 3))",
        "[8, 3, 3, 3] [1, 8, 8, 3] 3 8",
    ),
    "conv_rank": ("nn.Conv2d(3, 8, 3)(torch.ones(8, 8))", "conv2d input [8, 8]"),
    "conv1d_rank": ("nn.Conv1d(3, 8, 3)(torch.ones(1, 3, 8, 8))", "conv1d [1, 3, 8, 8]"),
    "conv_kernel_too_large": ("nn.Conv2d(1, 1, 5)(torch.ones(1, 1, 4, 4))", "4 5"),
    "conv_transpose_channels": ("nn.ConvTranspose2d(3, 2, 3)(torch.ones(1, 4, 5, 5))", "3 4"),
    "conv_groups": ("nn.Conv2d(3, 4, 3, groups=2)", "in_channels groups"),
    "conv_out_groups": ("nn.Conv2d(4, 3, 3, groups=2)", "out_channels groups"),
    "conv_padding_mode": ("nn.Conv2d(3, 4, 3, padding_mode='mirror')", "padding_mode mirror"),
    "conv_same_stride": ("nn.Conv2d(3, 4, 3, stride=2, padding='same')", "padding same"),
    "pool_too_large": ("F.max_pool2d(torch.ones(1, 1, 2, 2), 3)", "max_pool2d 0"),
    "pool_rank": ("F.avg_pool2d(torch.ones(4, 4), 2)", "4"),
    "matmul": ("torch.ones(2, 3) @ torch.ones(2, 3)", "2x3 2x3"),
    "matmul_batches": ("torch.matmul(torch.ones(2, 3, 4), torch.ones(5, 4, 3))", "2 5"),
    "matmul_scalar": ("torch.matmul(torch.tensor(1.0), torch.ones(2))", "0D 1D"),
    "matmul_vector": ("torch.ones(2, 3) @ torch.ones(4)", "2x3 4"),
    "mm_rank": ("torch.mm(torch.ones(2, 3, 4), torch.ones(4, 2))", "mm 3"),
    "bmm_rank": ("torch.bmm(torch.ones(2, 3), torch.ones(2, 3))", "batch1 3D"),
    "bmm_batches": ("torch.bmm(torch.ones(2, 3, 4), torch.ones(3, 4, 5))", "2 3"),
    "dot_sizes": ("torch.dot(torch.ones(3), torch.ones(4))", "3 4"),
    "dot_rank": ("torch.dot(torch.ones(3, 1), torch.ones(3))", "1D 2D"),
    "addmm_bias": ("torch.addmm(torch.ones(4), torch.ones(2, 3), torch.ones(3, 5))", "4 5"),
    "einsum_sizes": ("torch.einsum('ij,jk->ik', torch.ones(2, 3), torch.ones(4, 5))", "3 4"),
    "einsum_operands": ("torch.einsum('ij,jk->ik', torch.ones(2, 3))", "operands"),
    "add_sizes": ("torch.ones(3) + torch.ones(4)", "3 4 0"),
    "mul_sizes": ("torch.ones(2, 3) * torch.ones(2, 4)", "3 4 1"),
    "inplace_grows": ("torch.ones(3).add_(torch.ones(2, 3))", "[3] [2, 3]"),
    "where_sizes": ("torch.where(torch.ones(3) > 0, torch.ones(4), torch.zeros(4))", "3 4"),
    "cat_sizes": ("torch.cat([torch.ones(2, 3), torch.ones(2, 4)], 0)", "3 4"),
    "cat_ranks": ("torch.cat([torch.ones(2, 3), torch.ones(3)])", "2 1"),
    "cat_nothing": ("torch.cat([])", "cat"),
    "cat_tensor": ("torch.cat(torch.ones(2, 3), torch.ones(2, 3))", "cat"),
    "stack_sizes": ("torch.stack([torch.ones(2), torch.ones(3)])", "[2] [3]"),
    "stack_nothing": ("torch.stack([])", "stack"),
    "view_size": ("torch.ones(6).view(4, 2)", "[4, 2] 6"),
    "view_two_unknown": ("torch.ones(6).view(-1, -1)", "-1"),
    "view_strides": ("torch.ones(2, 3).t().view(6)", "view size"),
    "reshape_size": ("torch.ones(2, 3).reshape(4, -1)", "[4, -1] 6"),
    "expand_size": ("torch.ones(2, 3).expand(4, 3)", "4 2 0"),
    "repeat_few": ("torch.ones(2, 3).repeat(2)", "repeat"),
    "permute_count": ("torch.ones(2, 3).permute(0, 1, 2)", "2 3"),
    "permute_twice": ("torch.ones(2, 3).permute(0, 0)", "permute"),
    "transpose_dim": ("torch.ones(2, 3).transpose(0, 2)", "[-2, 1] 2"),
    "t_rank": ("torch.ones(2, 3, 4).t()", "3"),
    "squeeze_dim": ("torch.ones(2, 1).squeeze(3)", "[-2, 1] 3"),
    "unsqueeze_dim": ("torch.ones(2).unsqueeze(3)", "[-2, 1] 3"),
    "split_sizes": ("torch.ones(10).split([3, 3])", "10 [3, 3]"),
    "chunk_none": ("torch.ones(10).chunk(0)", "chunk"),
    "flatten_dims": ("torch.ones(2, 3).flatten(1, 0)", "flatten"),
    "unflatten": ("torch.ones(6).unflatten(0, (4, 2))", "[4, 2] 6"),
    "pad_odd": ("F.pad(torch.ones(2, 3), (1, 1, 1))", "padding"),
    "pad_reflect": ("F.pad(torch.ones(1, 1, 2), (3, 3), mode='reflect')", "3 2"),
    "batch_norm_channels": ("nn.BatchNorm1d(4)(torch.ones(2, 3))", "3 4"),
    "batch_norm_rank": ("nn.BatchNorm2d(3)(torch.ones(2, 3))", "4D 2D"),
    "batch_norm_one": ("nn.BatchNorm1d(3)(torch.ones(1, 3))", "more than 1 value"),
    "layer_norm_shape": ("nn.LayerNorm(4)(torch.ones(2, 3))", "[4] [2, 3]"),
    "group_norm_channels": ("nn.GroupNorm(2, 5)", "num_channels num_groups"),
    "embedding_range": ("nn.Embedding(4, 2)(torch.tensor([5]))", "index out of range"),
    "rnn_features": ("nn.LSTM(4, 5)(torch.ones(3, 2, 6))", "4 6"),
    "rnn_hidden": ("nn.GRU(4, 5)(torch.ones(3, 2, 4), torch.ones(1, 3, 5))", "(1, 2, 5) [1, 3, 5]"),
    "attention_heads": ("nn.MultiheadAttention(10, 3)", "embed_dim num_heads"),
    "attention_width": (
        "m = nn.MultiheadAttention(8, 2); x = torch.ones(3, 1, 6); m(x, x, x)",
        "8 6",
    ),
    "sdpa_width": (
        "F.scaled_dot_product_attention(torch.ones(1, 3, 4), torch.ones(1, 3, 5), torch.ones(1, 3, 5))",
        "4 5",
    ),
    "pixel_shuffle": ("F.pixel_shuffle(torch.ones(1, 3, 2, 2), 2)", "3 4"),
    "interpolate_both": (
        "F.interpolate(torch.ones(1, 1, 2, 2), size=4, scale_factor=2)",
        "size scale_factor",
    ),
    "interpolate_none": ("F.interpolate(torch.ones(1, 1, 2, 2))", "size scale_factor"),
    "interpolate_mode": ("F.interpolate(torch.ones(1, 1, 2, 2), size=4, mode='cubic')", "cubic"),
    "ragged_list": ("torch.tensor([[1, 2], [3]])", "expected sequence of length 2 got 1"),
}

LOSSES = {
    "cross_entropy_batch": ("F.cross_entropy(torch.ones(3, 5), torch.tensor([0, 1]))", "3 2"),
    "cross_entropy_class": ("F.cross_entropy(torch.ones(2, 5), torch.tensor([0, 5]))", "5"),
    "cross_entropy_negative": ("F.cross_entropy(torch.ones(2, 5), torch.tensor([0, -1]))", "-1"),
    "cross_entropy_float": ("F.cross_entropy(torch.ones(2, 5), torch.tensor([0.0, 1.0]))", "Float"),
    "cross_entropy_column": (
        "F.cross_entropy(torch.ones(2, 5), torch.tensor([[0], [1]]))",
        "target",
    ),
    "cross_entropy_weight": (
        "F.cross_entropy(torch.ones(2, 5), torch.tensor([0, 1]), weight=torch.ones(4))",
        "weight 5 [4]",
    ),
    "cross_entropy_reduction": (
        "F.cross_entropy(torch.ones(2, 5), torch.tensor([0, 1]), reduction='avg')",
        "avg reduction",
    ),
    "nll_images": (
        "F.nll_loss(torch.ones(1, 3, 4, 4), torch.zeros(1, 4, 5).long())",
        "[1, 3, 4, 4] [1, 4, 5]",
    ),
    "mse_sizes": ("F.mse_loss(torch.ones(3), torch.ones(4))", "3 4"),
    "bce_sizes": ("F.binary_cross_entropy(torch.ones(3, 1), torch.ones(3))", "[3] [3, 1]"),
    "bce_logits_sizes": (
        "F.binary_cross_entropy_with_logits(torch.ones(3, 1), torch.ones(3))",
        "[3] [3, 1]",
    ),
    "bce_range": ("F.binary_cross_entropy(torch.tensor([1.5]), torch.tensor([1.0]))", "0 and 1"),
    "bce_integers": ("F.binary_cross_entropy(torch.tensor([0.5]), torch.tensor([1]))", "Long"),
    "kl_reduction": ("F.kl_div(torch.ones(2), torch.ones(2), reduction='meen')", "meen"),
    "one_hot_classes": ("F.one_hot(torch.tensor([0, 4]), 3)", "num_classes"),
    "one_hot_float": ("F.one_hot(torch.tensor([0.0]))", "index"),
    "softmax_dim": ("F.softmax(torch.ones(2, 3), dim=2)", "[-2, 1] 2"),
    "softmax_integers": ("F.softmax(torch.tensor([1, 2]), dim=0)", "softmax"),
    "dropout_rate": ("nn.Dropout(1.5)", "1.5"),
    "triplet_sizes": (
        "F.triplet_margin_loss(torch.ones(2, 3), torch.ones(2, 4), torch.ones(2, 3))",
        "3 4",
    ),
    "ctc_lengths": (
        "F.ctc_loss(torch.zeros(5, 2, 4), torch.ones(2, 3).long(), torch.tensor([5]), torch.tensor([3, 3]))",
        "input_lengths",
    ),
}

DTYPES = {
    "linear_integers": ("nn.Linear(2, 2)(torch.ones(1, 2).long())", "dtype"),
    "linear_double": ("nn.Linear(2, 2)(torch.ones(1, 2).double())", "dtype"),
    "conv_double": ("nn.Conv1d(1, 1, 1)(torch.ones(1, 1, 2).double())", "Double Float"),
    "conv_bytes": (
        "nn.Conv2d(3, 1, 1)(torch.ones(1, 3, 2, 2, dtype=torch.uint8))",
        "Byte Float",
    ),
    "matmul_dtypes": ("torch.ones(2, 2) @ torch.ones(2, 2).long()", "Float Long"),
    "embedding_float": ("nn.Embedding(4, 2)(torch.ones(2))", "Long Int Float"),
    "mean_integers": ("torch.tensor([1, 2]).mean()", "mean Long"),
    "std_integers": ("torch.tensor([1, 2]).std()", "std Long"),
    "gather_index": ("torch.ones(3).gather(0, torch.tensor([0.0]))", "int64"),
    "index_float": ("torch.ones(3)[torch.tensor([0.0])]", "tensors used as indices long"),
    "index_select_float": ("torch.ones(3).index_select(0, torch.tensor([0.0]))", "index_select"),
    "scatter_index": ("torch.zeros(3).scatter_(0, torch.tensor([0.0]), 1.0)", "int64"),
    "scatter_dtype": (
        "torch.zeros(3).scatter_(0, torch.tensor([0]), torch.tensor([1]))",
        "dtype",
    ),
    "integers_need_grad": ("torch.tensor([1, 2], requires_grad=True)", "floating"),
    "integers_require_grad": ("torch.tensor([1, 2]).requires_grad_()", "floating"),
    "inplace_cast": ("torch.tensor([1, 2]).add_(0.5)", "Float Long"),
    "inplace_divide": ("x = torch.tensor([1, 2]); x /= 2", "Float Long"),
    "normal_integers": ("torch.tensor([1, 2]).normal_()", "normal Long"),
    "randint_empty": ("torch.randint(5, 5, (2,))", "from to 5"),
    "bool_minus": ("torch.tensor([True]) - torch.tensor([False])", "bool"),
    "bool_negative": ("-torch.tensor([True])", "bool"),
    "bitwise_floats": ("torch.ones(2) & torch.ones(2)", "bitwise_and Float"),
    "tensor_of_text": ("torch.tensor(['a'])", "'str'"),
    "tensor_none": ("torch.tensor(None)", "NoneType"),
    "tensor_of_objects": ("torch.tensor([object()])", "object"),
    "numpy_grad": ("torch.ones(2, requires_grad=True).numpy()", "detach"),
    "bool_of_many": ("bool(torch.ones(2))", "ambiguous"),
    "item_of_many": ("torch.ones(2).item()", "2 Scalar"),
    "float_of_many": ("float(torch.ones(2))", "one element"),
    "int_index": ("[1, 2, 3][torch.tensor(0.5)]", "integer"),
    "len_of_scalar": ("len(torch.tensor(1.0))", "0-d"),
    "iterate_scalar": ("list(torch.tensor(1.0))", "0-d"),
    "masked_fill_mask": ("torch.ones(2).masked_fill(torch.tensor([1, 0]), 0.0)", "bool"),
    "where_condition": ("torch.where(torch.tensor([1.0]), torch.ones(1), torch.ones(1))", "bool"),
    "pow_negative": ("torch.tensor([2]) ** -1", "negative"),
    "add_string": ("torch.ones(2) + 'a'", "str"),
    "add_none": ("torch.ones(2) + None", "NoneType"),
    "relu_of_list": ("F.relu([1.0])", "list"),
    "sum_of_list": ("torch.sum([1.0, 2.0])", "list"),
    "zeros_of_floats": ("torch.zeros(2.5)", "float"),
    "unknown_argument": ("torch.zeros(2, dim=3)", "dim"),
    "dtype_string": ("torch.zeros(2, dtype='float32')", "dtype str"),
    "arange_step": ("torch.arange(5, 0)", "bound"),
    "arange_zero_step": ("torch.arange(0, 5, 0)", "step"),
    "linspace_steps": ("torch.linspace(0, 1, -1)", "steps"),
    "negative_size": ("torch.zeros(-1)", "negative -1"),
}

INDEXING = {
    "index_range": ("torch.ones(3)[3]", "3 0"),
    "index_list_range": ("torch.ones(3)[[0, 5]]", "5 3"),
    "index_too_many": ("torch.ones(3)[0, 0]", "1"),
    "index_scalar": ("torch.tensor(1.0)[0]", "0-dim"),
    "index_mask": ("torch.ones(3)[torch.tensor([True, False])]", "[2] [3]"),
    "index_string": ("torch.ones(3)['a']", "str"),
    "index_negative_step": ("torch.ones(3)[::-1]", "step"),
    "index_shapes": ("torch.ones(4, 4)[torch.tensor([0, 1]), torch.tensor([0, 1, 2])]", "[2] [3]"),
    "assign_sizes": ("x = torch.ones(3); x[:2] = torch.ones(3)", "3 2"),
    "assign_mask": ("x = torch.ones(3); x[torch.tensor([True, True])] = 0", "[2] [3]"),
    "gather_range": ("torch.ones(3).gather(0, torch.tensor([5]))", "5 3"),
    "gather_rank": ("torch.ones(2, 3).gather(0, torch.tensor([0]))", "dimensions"),
    "index_select_range": ("torch.ones(3).index_select(0, torch.tensor([5]))", "index"),
    "take_range": ("torch.take(torch.ones(3), torch.tensor([5]))", "index"),
    "scatter_range": ("torch.zeros(3).scatter_(0, torch.tensor([4]), 1.0)", "4 3"),
    "select_range": ("torch.ones(2, 3).select(1, 3)", "3"),
    "narrow_range": ("torch.ones(4).narrow(0, 2, 3)", "2 3 4"),
    "dim_range": ("torch.ones(2, 3).sum(dim=2)", "[-2, 1] 2"),
    "dim_twice": ("torch.ones(2, 3).sum(dim=(0, 0))", "dim 0"),
    "argmax_empty": ("torch.zeros(0).argmax()", "argmax"),
    "max_empty": ("torch.zeros(0).max()", "max"),
    "topk_range": ("torch.ones(3).topk(4)", "k"),
    "kthvalue_range": ("torch.ones(3).kthvalue(4)", "k"),
    "sort_dim": ("torch.ones(3).sort(dim=1)", "[-1, 0] 1"),
    "multinomial_zeros": ("torch.multinomial(torch.zeros(3), 1)", "sum"),
    "multinomial_many": ("torch.multinomial(torch.ones(3), 4)", "replacement"),
    "diagonal_rank": ("torch.ones(3).diagonal()", "[-1, 0] 1"),
    "triu_rank": ("torch.ones(3).triu()", "2"),
    "cholesky": ("torch.linalg.cholesky(-torch.eye(2))", "cholesky 1"),
    "inverse_singular": ("torch.linalg.inv(torch.zeros(2, 2))", "inv singular"),
    "inverse_square": ("torch.linalg.inv(torch.ones(2, 3))", "square 2 by 3"),
    "solve_singular": ("torch.linalg.solve(torch.zeros(2, 2), torch.ones(2))", "solve singular"),
}

AUTOGRAD = {
    "backward_no_grad": ("torch.ones(2).sum().backward()", "element 0 grad_fn"),
    "backward_vector": ("torch.ones(2, requires_grad=True).mul(2).backward()", "scalar"),
    "backward_twice": (
        "x = torch.ones(2, requires_grad=True); y = x.exp().sum(); y.backward(); y.backward()",
        "second time retain_graph",
    ),
    "backward_gradient_shape": (
        "(torch.ones(2, requires_grad=True) * 2).backward(torch.ones(3))",
        "[3] [2]",
    ),
    "detached_loss": (
        "m = nn.Linear(2, 1); F.mse_loss(m(torch.ones(1, 2)).detach(), torch.ones(1, 1)).backward()",
        "grad_fn",
    ),
    "no_grad_loss": (
        "m = nn.Linear(2, 1)\nwith torch.no_grad():\n    y = m(torch.ones(1, 2)).sum()\ny.backward()",
        "grad_fn",
    ),
    "grad_of_unused": (
        "x, z = (torch.ones(2, requires_grad=True) for _ in 'ab'); torch.autograd.grad(x.sum(), z)",
        "allow_unused",
    ),
    "grad_of_plain": (
        "x = torch.ones(2); torch.autograd.grad((x * torch.ones(2, requires_grad=True)).sum(), x)",
        "require grad",
    ),
    "inplace_saved": (
        "x = torch.ones(2, requires_grad=True); y = x.exp(); y.add_(1); y.sum().backward()",
        "inplace version 1 0",
    ),
    "inplace_leaf": ("x = torch.ones(2, requires_grad=True); x.add_(1)", "leaf"),
    "inplace_leaf_index": ("x = torch.ones(2, requires_grad=True); x[0] = 1.0", "leaf"),
    "inplace_expanded": ("torch.ones(1).expand(3).add_(1)", "expand"),
    "inplace_sigmoid": (
        "x = torch.ones(2, requires_grad=True); y = x.sigmoid(); y *= 2; y.sum().backward()",
        "inplace version 1 0",
    ),
    "grad_shape": ("x = torch.ones(2, requires_grad=True); x.grad = torch.ones(3)", "[3] [2]"),
    "grad_type": ("x = torch.ones(2, requires_grad=True); x.grad = 1.0", "float"),
    "requires_grad_nonleaf": (
        "y = torch.ones(2, requires_grad=True) * 2; y.requires_grad = False",
        "leaf",
    ),
    "deepcopy_nonleaf": ("copy.deepcopy(torch.ones(2, requires_grad=True) * 2)", "deepcopy"),
    "hook_no_grad": ("torch.ones(2).register_hook(lambda g: g)", "gradient"),
    "retain_grad_no_grad": ("torch.ones(2).retain_grad()", "requires_grad"),
    "function_count": (
        "class A(torch.autograd.Function):\n"
        "    @staticmethod\n    def forward(ctx, x, y): return x + y\n"
        "    @staticmethod\n    def backward(ctx, g): return g\n"
        "A.apply(torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)).sum().backward()",
        "gradients 2 1",
    ),
    "function_shape": (
        "class A(torch.autograd.Function):\n"
        "    @staticmethod\n    def forward(ctx, x): return x * 2\n"
        "    @staticmethod\n    def backward(ctx, g): return torch.ones(3)\n"
        "A.apply(torch.ones(2, requires_grad=True)).sum().backward()",
        "[3] [2]",
    ),
    "function_no_backward": (
        "class A(torch.autograd.Function):\n"
        "    @staticmethod\n    def forward(ctx, x): return x * 2\n"
        "A.apply(torch.ones(2, requires_grad=True)).sum().backward()",
        "backward",
    ),
}

MODULES = {
    "missing_key": (
        "nn.Linear(2, 2).load_state_dict({'weight': torch.ones(2, 2)})",
        'Missing key(s) "bias" Linear',
    ),
    "unexpected_key": (
        "nn.Linear(2, 2, bias=False).load_state_dict(nn.Linear(2, 2).state_dict())",
        'Unexpected key(s) "bias" Linear',
    ),
    "data_parallel_keys": (
        "nn.Linear(2, 2).load_state_dict({'module.' + k: v for k, v in nn.Linear(2, 2).state_dict().items()})",
        'Missing "weight" "bias" Unexpected "module.weight" "module.bias"',
    ),
    "size_mismatch": (
        "nn.Linear(2, 2).load_state_dict(nn.Linear(3, 2).state_dict())",
        "weight [2, 3] [2, 2]",
    ),
    "state_of_model": ("nn.Linear(2, 2).load_state_dict(nn.Linear(2, 2))", "Linear"),
    "attribute": ("nn.Linear(2, 2).wieght", "Linear wieght"),
    "before_init": (
        "class M(nn.Module):\n    def __init__(self):\n        self.a = nn.Linear(1, 1)\nM()",
        "__init__",
    ),
    "before_init_parameter": (
        "class M(nn.Module):\n    def __init__(self):\n        self.a = nn.Parameter(torch.ones(1))\nM()",
        "__init__",
    ),
    "no_forward": (
        "class M(nn.Module): pass\nM()(torch.ones(1))",
        "M forward",
    ),
    "forward_arguments": ("nn.Linear(2, 2)()", "input"),
    "forward_too_many": ("nn.Linear(2, 2)(torch.ones(2), torch.ones(2))", "3"),
    "sequential_two": ("nn.Sequential(nn.Identity(), nn.ReLU())(1, 2)", "2 3"),
    "sequential_function": ("nn.Sequential(nn.ReLU(), F.relu)", "Module"),
    "list_of_functions": ("nn.ModuleList([F.relu])", "Module"),
    "module_list_call": ("nn.ModuleList([nn.ReLU()])(torch.ones(1))", "forward"),
    "module_list_range": ("nn.ModuleList([nn.ReLU()])[2]", "2"),
    "parameter_is_tensor": (
        "m = nn.Linear(2, 2); m.weight = torch.ones(2, 2)",
        "weight Parameter",
    ),
    "register_taken": ("nn.Linear(2, 2).register_buffer('weight', torch.ones(1))", "weight"),
    "register_dotted": ("nn.Linear(2, 2).register_parameter('a.b', None)", '"."'),
    "buffer_not_tensor": ("nn.Linear(2, 2).register_buffer('a', 3)", "int a"),
    "get_submodule": ("nn.Sequential(nn.ReLU()).get_submodule('0.conv')", "conv"),
    "missing_argument": ("nn.Linear(2)", "out_features"),
    "wrong_argument": ("nn.Linear(2, 2, biased=False)", "biased"),
    "string_sizes": ("nn.Linear('2', 2)", "str"),
    "float_sizes": ("nn.Linear(2.0, 2)", "float"),
    "activation_name": ("nn.TransformerEncoderLayer(4, 2, activation='swich')", "swich"),
    "cuda_missing": ("nn.Linear(2, 2).cuda()", "CUDA"),
    "tensor_cuda": ("torch.ones(2).cuda()", "CUDA"),
    "to_cuda": ("torch.ones(2).to('cuda')", "CUDA"),
    "device_typo": ("torch.ones(2).to('gpu')", "gpu cpu"),
    "device_empty": ("torch.device('')", "device"),
    "device_index": ("torch.device('cpu:x')", "cpu:x"),
    "to_integers": ("nn.Linear(2, 2).to(torch.int64)", "floating int64"),
    "xavier_vector": ("nn.init.xavier_uniform_(torch.ones(3))", "dimensions"),
    "kaiming_gain": ("nn.init.calculate_gain('swish')", "swish"),
    "load_missing_file": ("torch.load('no-such-file.pt')", "no-such-file.pt"),
    "load_empty": ("torch.load(io.BytesIO(b''))", ""),
    "pickle_lambda": ("torch.save(lambda: 0, io.BytesIO())", "lambda"),
}

TRAINING = {
    "optimizer_empty": ("optim.SGD([], lr=0.1)", "empty parameter list"),
    "optimizer_module": ("optim.SGD(nn.Linear(1, 1), lr=0.1)", "Linear"),
    "optimizer_tensor": ("optim.SGD(torch.ones(1, requires_grad=True), lr=0.1)", "iterable Tensor"),
    "optimizer_method": ("optim.Adam(nn.Linear(1, 1).parameters)", "iterable"),
    "optimizer_nonleaf": (
        "optim.SGD([torch.ones(2, requires_grad=True) * 2], lr=0.1)",
        "non-leaf",
    ),
    "optimizer_rate": ("optim.Adam(nn.Linear(1, 1).parameters(), lr=-1.0)", "learning rate -1.0"),
    "optimizer_betas": ("optim.Adam(nn.Linear(1, 1).parameters(), betas=(1.5, 0.9))", "beta 1.5"),
    "optimizer_momentum": (
        "optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1, momentum=-1.0)",
        "momentum -1.0",
    ),
    "optimizer_nesterov": (
        "optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1, nesterov=True)",
        "Nesterov momentum",
    ),
    "optimizer_argument": ("optim.Adam(nn.Linear(1, 1).parameters(), momentum=0.9)", "momentum"),
    "optimizer_shared": (
        "m = nn.Linear(1, 1); optim.SGD([{'params': m.parameters()}, {'params': m.parameters()}], lr=0.1)",
        "more than one parameter group",
    ),
    "optimizer_groups": (
        "a, b = nn.Linear(1, 1), nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))\n"
        "optim.SGD(a.parameters(), lr=0.1).load_state_dict(optim.SGD([{'params': [p]} for p in b.parameters()], lr=0.1).state_dict())",
        "parameter groups",
    ),
    "optimizer_sizes": (
        "a, b = nn.Linear(1, 1), nn.Linear(1, 1, bias=False)\n"
        "optim.SGD(a.parameters(), lr=0.1).load_state_dict(optim.SGD(b.parameters(), lr=0.1).state_dict())",
        "size",
    ),
    "scheduler_not_optimizer": (
        "optim.lr_scheduler.StepLR(nn.Linear(1, 1), 1)",
        "Linear Optimizer",
    ),
    "scheduler_lambdas": (
        "optim.lr_scheduler.LambdaLR(optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1), [lambda e: 1, lambda e: 1])",
        "1 2",
    ),
    "plateau_no_metric": (
        "optim.lr_scheduler.ReduceLROnPlateau(optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)).step()",
        "metrics",
    ),
    "plateau_mode": (
        "optim.lr_scheduler.ReduceLROnPlateau(optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1), mode='low')",
        "mode low",
    ),
    "onecycle_steps": (
        "optim.lr_scheduler.OneCycleLR(optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1), max_lr=1.0)",
        "total_steps",
    ),
    "lbfgs_closure": ("optim.LBFGS(nn.Linear(1, 1).parameters()).step()", "closure"),
    "clip_infinite": (
        "p = nn.Parameter(torch.ones(1)); p.grad = torch.tensor([float('inf')])\n"
        "nn.utils.clip_grad_norm_([p], 1.0, error_if_nonfinite=True)",
        "norm non-finite",
    ),
    "collate_ragged": (
        "next(iter(DataLoader([torch.ones(2), torch.ones(3)], batch_size=2)))",
        "[2] [3]",
    ),
    "collate_none": ("next(iter(DataLoader([None, None], batch_size=2)))", "NoneType"),
    "collate_object": ("next(iter(DataLoader([object(), object()], batch_size=2)))", "object"),
    "collate_lengths": (
        "next(iter(DataLoader([[1, 2], [3]], batch_size=2)))",
        "equal size",
    ),
    "collate_keys": (
        "next(iter(DataLoader([{'a': 1}, {'b': 2}], batch_size=2)))",
        "a",
    ),
    "loader_batch": ("DataLoader([1, 2], batch_size=0)", "batch_size 0"),
    "loader_both": ("DataLoader([1, 2], shuffle=True, sampler=[0, 1])", "sampler shuffle"),
    "loader_workers": ("DataLoader([1, 2], num_workers=-1)", "num_workers"),
    "loader_empty": ("DataLoader([], shuffle=True)", "num_samples 0"),
    "dataset_sizes": ("TensorDataset(torch.ones(2), torch.ones(3))", "ize mismatch"),
    "dataset_abstract": (
        "class D(Dataset): pass\nD()[0]",
        "",
    ),
    "dataset_error": (
        "class D(Dataset):\n    def __len__(self): return 2\n    def __getitem__(self, i): return {'x': 1}['y']\n"
        "list(DataLoader(D()))",
        "y",
    ),
    "split_lengths": ("random_split([1, 2, 3], [1, 1])", "lengths"),
    "pack_lengths": (
        "nn.utils.rnn.pack_padded_sequence(torch.ones(3, 2, 1), [2, 3])",
        "enforce_sorted",
    ),
    "pack_count": (
        "nn.utils.rnn.pack_padded_sequence(torch.ones(3, 2, 1), [3])",
        "2 1",
    ),
    "pad_sequence_widths": (
        "nn.utils.rnn.pad_sequence([torch.ones(2, 3), torch.ones(2, 4)])",
        "3 4",
    ),
    "sparse_adam_rates": (
        "optim.SparseAdam([torch.ones(2)], lr=torch.tensor([1e-3, 1e-3]))",
        "lr 1-element",
    ),
    "adafactor_complex": (
        "p = torch.ones(2, dtype=torch.complex64, requires_grad=True); p.grad = p.detach()\noptim.Adafactor([p]).step()",
        "Adafactor complex",
    ),
    "scaler_twice": (
        "s = torch.amp.GradScaler('cpu'); o = optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)\ns.scale(torch.ones(1)); s.unscale_(o); s.unscale_(o)",
        "unscale_",
    ),
    "unknown_name": ("torch.softmaxx", "softmaxx"),
    "unknown_method": ("torch.ones(2).softmaxx()", "Tensor softmaxx"),
    "vmap_sizes": (
        "torch.func.vmap(torch.add)(torch.ones(2, 3), torch.ones(4, 3))",
        "2 4",
    ),
    "func_grad_vector": ("torch.func.grad(lambda x: x * 2)(torch.ones(2))", "scalar"),
    "distribution_scale": ("torch.distributions.Normal(0.0, -1.0)", "scale Normal"),
    "distribution_probs": (
        "torch.distributions.Categorical(probs=torch.tensor([-1.0, 2.0]))",
        "probs Categorical",
    ),
    "distribution_both": (
        "torch.distributions.Bernoulli(probs=torch.tensor(0.5), logits=torch.tensor(0.0))",
        "probs logits",
    ),
    "generator_device": ("torch.Generator(device='gpu')", "gpu"),
    "seed_type": ("torch.manual_seed('a')", "a"),
}

# an argument of another kind than the function takes
KINDS = {
    "kind_softmax_dtype": ("torch.softmax(torch.ones(2), 0, dtype=5)", "dtype int"),
    "kind_cumsum_dtype": ("torch.ones(2).cumsum(0, dtype='f')", "dtype str"),
    "kind_sum_dtype": ("torch.ones(2).sum(dtype=5)", "dtype int"),
    "kind_addcdiv": ("torch.addcdiv(torch.ones(2), [1, 2], torch.ones(2))", "addcdiv list"),
    "kind_addcdiv_input": ("torch.addcdiv([1], torch.ones(1), torch.ones(1))", "addcdiv list"),
    "kind_lerp": ("torch.lerp('a', torch.ones(2), 0.5)", "lerp str"),
    "kind_clone": ("torch.clone([1])", "clone list"),
    "kind_frac": ("torch.frac([1])", "list"),
    "kind_nonzero": ("torch.nonzero([1])", "nonzero list"),
    "kind_unique": ("torch.unique([1])", "unique list"),
    "kind_add_alpha": ("torch.add(torch.ones(2), 1, alpha='a')", "alpha str"),
    "kind_sub_alpha": ("torch.sub(torch.ones(2), 1, alpha=[1])", "list"),
    "kind_addmm_alpha": (
        "a = torch.ones(2, 2); torch.addmm(a, a, a, alpha='a')",
        "addmm alpha str",
    ),
    "kind_baddbmm_beta": (
        "a = torch.ones(1, 2, 2); torch.baddbmm(a, a, a, beta='a')",
        "baddbmm str",
    ),
    "kind_index_add_alpha": (
        "a = torch.ones(2); a.index_add(0, torch.tensor([0]), a[:1], alpha='a')",
        "index_add alpha str",
    ),
    "kind_dim_name": ("torch.ones(2).sum('a')", "sum"),
    "kind_dim_float": ("torch.ones(2).argmax(0.5)", "dim float"),
    "kind_dim_bool": ("torch.ones(2, 2).sum(True)", "sum dim bool"),
    "kind_softmax_dim": ("F.softmax(torch.ones(2), 0.5)", "softmax dim float"),
    "kind_gumbel": ("F.gumbel_softmax([1])", "list"),
    "kind_device": ("torch.zeros(2, device=[1])", "device list"),
    "kind_fft_norm": ("torch.fft.fft(torch.ones(2), norm=5)", "norm int"),
    "kind_expand_as": ("torch.ones(2).expand_as([1])", "expand_as list"),
    "kind_index": ("torch.ones(2, 2).index_select(0, [1])", "index_select index list"),
    "kind_generator": ("torch.randn(2, generator=5)", "generator int"),
    "kind_promote": ("torch.promote_types(5, torch.float32)", "promote_types 5"),
    "kind_view_dtype": ("torch.ones(2).view(dtype=5)", "dtype int"),
    "kind_too_many_bytes": ("torch.empty(2**62)", "4611686018427387904"),
    "kind_full": ("torch.full((2,), 'a')", "str"),
    "kind_baddbmm_names_beta": (
        "a = torch.ones(1, 2, 2); torch.baddbmm(a, a, a, beta=[1], alpha=1)",
        "baddbmm beta list",
    ),
    "kind_keepdim": ("torch.ones(2).sum(0, keepdim=1.5)", "keepdim bool float"),
    "kind_keepdim_tensor": ("torch.ones(2).amax(0, torch.ones(2))", "keepdim bool Tensor"),
    "kind_descending": ("torch.sort(torch.ones(2), descending='x')", "descending bool str"),
    "kind_upper": ("torch.linalg.cholesky(torch.eye(2), upper=1.5)", "upper bool float"),
    "kind_n": ("torch.polygamma(1.5, torch.ones(2))", "n int float"),
    "kind_requires_grad": ("torch.zeros(2, requires_grad='x')", "requires_grad bool str"),
    "kind_window_device": ("torch.signal.windows.hann(4, device=1.5)", "device float"),
    "kind_memory_format": ("torch.ones(2).contiguous(memory_format=1)", "memory_format int"),
    "kind_kernel": ("F.max_pool2d(torch.ones(1, 1, 4, 4), 'x')", "max_pool2d kernel_size str"),
    "kind_stride": (
        "F.conv1d(torch.ones(1, 1, 4), torch.ones(1, 1, 2), None, 1.5)",
        "stride float",
    ),
    "kind_padding": ("F.avg_pool1d(torch.ones(1, 4), 2, 1, True)", "padding bool"),
    "kind_quantile": ("torch.quantile(torch.ones(2), 0.5, interpolation=5)", "interpolation int"),
    "kind_rounding": ("torch.div(torch.ones(2), 2, rounding_mode=5)", "rounding_mode int"),
    "kind_uplo": ("torch.linalg.eigh(torch.eye(2), UPLO=1)", "UPLO str int"),
    "kind_exponential": ("torch.Tensor.exponential_([1])", "list"),
    "kind_as_strided": ("torch.as_strided([1], (1,), (1,))", "as_strided list"),
    "kind_bincount": ("torch.bincount([1])", "bincount list"),
    "kind_rand_like": ("torch.rand_like([1])", "rand_like list"),
    "kind_eps": ("F.cosine_similarity(torch.ones(2), torch.ones(2), 0, 'x')", "eps str"),
    "kind_full_dtype": ("torch.full((2,), None, dtype=torch.float32)", "NoneType"),
    "kind_embedding": ("F.embedding(torch.tensor([1]), 'x')", "embedding weight Tensor str"),
    "kind_tensordot": ("torch.tensordot(torch.ones(2), 1.5)", "tensordot b Tensor float"),
    "kind_bce_weight": ("F.binary_cross_entropy(torch.ones(2), 2)", "target Tensor int"),
    "kind_logspace": ("torch.logspace(torch.ones(2), torch.tensor(3.0), 2)", "start 1"),
    "kind_ceil_mode": ("F.max_pool2d(torch.ones(1, 4, 4), 2, ceil_mode='x')", "ceil_mode bool str"),
    "kind_stable": ("torch.sort(torch.ones(3), stable='x')", "sort stable bool str"),
    "kind_radd": ("torch.Tensor.__radd__(2, torch.ones(3))", "add Tensor"),
}

MISTAKES = {**SHAPES, **LOSSES, **DTYPES, **INDEXING, **AUTOGRAD, **MODULES, **TRAINING, **KINDS}
