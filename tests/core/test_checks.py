"""The checks can fail: right parts pass, and each of many faults, put into a right part, is found and named.

A fault is a replacement of text in a file of tests/fixtures/parts, so that it is the only thing wrong.
"""

from __future__ import annotations

import tempfile
from getpass import getuser
from pathlib import Path

import pytest

from archwright import ops
from archwright.core.checks import check_part, rule, suite
from archwright.core.part import KINDS, read

RIGHT = Path(__file__).parent.parent / "fixtures" / "parts"

LIAR = """
from archwright.ops.base import Attr, Axes, Cost, Op, labels, same_type
ops_table = __import__("archwright.ops", fromlist=["table"]).table()
ops_table["liar_{about}"] = Op(
    "liar_{about}", infer={infer}, run=lambda a, x, w, train: {run}, attrs={{}}, axes={axes}, cost={cost}
)

def build(g: Editor"""
TRUE = {
    "infer": "same_type",
    "run": "x[0]",
    "axes": "lambda a, x, y: Axes((labels(x[0].shape),), (labels(x[0].shape),))",
    "cost": "lambda a, x, y: Cost()",
}
LIES = {
    "axes": {"run": "x[0].cumsum(-1)"},
    "types": {"infer": "lambda a, x: (x[0]._replace(dtype='float64'),)"},
    "flops": {"cost": "lambda a, x, y: Cost(flops=7)"},
}


def lie(about):
    """A block with an op that says something false of itself."""
    text = LIAR.format(about=about, **{**TRUE, **LIES[about]})
    where = '"up"))' if about == "axes" else '"down")'
    return [("def build(g: Editor", text), (where, f'{where}; y = g.add("liar_{about}", y)')]


# kind -> fault -> replacements, what the message says
FAULTS = {
    "block": {
        "axes lie": (lie("axes"), "axes lie"),
        "types lie": (lie("types"), "types are not what runs"),
        "flops lie": (lie("flops"), "FLOPs, torch counts"),
        "dead weight": ([('name="down")', 'name="down"); y = g.add("mul", y, value=0.0)')], "no gradient reaches"),
        "bakes the batch": (
            [("return g.add", 'y = g.add("reshape", y, shape=(2, *g.shape(x)[1:]))\n    return g.add')],
            "shape|invalid|infer|batch",
        ),
        "mixes samples": (
            [("return g.add", 'y = g.add("sub", y, g.add("mean", y, dim=0, keepdim=True))\n    return g.add')],
            "depends on the batch",
        ),
        "reads the scope": (
            [('g.add("tanh", ', 'g.add("relu" if g.prefix else "tanh", ')],
            "built within a scope, the key differs",
        ),
        "slot of its own": ([('name="up"', 'name="up", slot="mine"')], "used twice in one graph"),
        "swallows keywords": ([("hidden: int = 16)", "hidden: int = 16, **hp)")], r"takes \*\*hp"),
        "no default": ([("hidden: int = 16)", "hidden: int)")], "no default"),
        "random width": (
            [("    y = g.add(", "    import random\n    hidden = random.randint(2, 99)\n    y = g.add(")],
            "the generator of Python",
        ),
        "one setting": ([('{"inputs": [{"shape": [None, 3, 10]}]},', "")], "needs two settings"),
        "an odd key": ([('"hp": {"hidden": 8},', '"hp": {"hidden": 8}, "shape": [3],')], r"unknown keys \['shape'\]"),
        "hash order": (
            # six in the order of their hashes: of one alone, a sixth of all orders give the same
            [
                ("def build(", "EACH = set('tanh relu sin cos gelu silu'.split())\n\n\ndef build("),
                ('g.add("tanh", ', "(lambda h: [h := g.add(op, h) for op in EACH][-1])("),
            ],
            "in another process",
        ),
        "no docstring": ([('    """x [N, ..., C] -> [N, ..., C]."""\n', "")], "build has no docstring"),
        "imports a part": (
            [('    y = g.add("layer', '    if hidden < 0:\n        import archwright.flows\n    y = g.add("layer')],
            "floors below",
        ),
        "bad arxiv": ([('"arxiv": ""', '"arxiv": "arXiv:2105.01601"')], "identifier such as"),
        "no claim": ([('"claim": {}', '"claim": {"text": "a", "paper": "b"}')], "defines no claim"),
        "no onnx": (
            [('y = g.add("tanh", ', 'y = g.add("erfinv_not", ')],
            "erfinv_not",
        ),
    },
    "space": {
        "another graph on replay": (
            [
                ("    width = choose", "    global _n\n    _n += 1\n    width = choose"),
                ("def draw(", "_n = 0\n\n\ndef draw("),
                ('name="stem")', 'name="stem")\n    x = g.add("mul", x, value=float(_n))'),
            ],
            "called twice|another graph",
        ),
        "wrong count": ([('"count": 24', '"count": 25')], "has 24 traces, PART says 25"),
        "wrong unique": ([('"unique": 10', '"unique": 11')], "10 distinct graphs"),
        "wrong output": ([("out=spec.outputs", "out=spec.outputs + 1")], r"gives \[2, 4\]"),
        "wrong input": ([('g.input("x", spec.inputs[0])', 'g.input("x", (None, 6))')], "the spec says"),
        "names depend on values": ([('name="stem"', 'name=f"stem{width}"')], "names of nodes depend"),
        "wiring depends on sizes": (
            [
                (
                    'return choose.branch(f"block.{i}", g, x,',
                    'return choose.branch(f"block.{i}", g, x if width == 4 else first[0],',
                ),
                ('name="stem")', 'name="stem")\n    first = [x]'),
            ],
            "not the drawn graph|says",
        ),
        "no small": ([('"small"', '"big"')], "unknown keys"),
        "random": (
            [("    width = choose", "    import numpy\n    numpy.random.rand()\n    width = choose")],
            "the generator of NumPy",
        ),
    },
    "strategy": {
        "reads the clock": ([("    sign = -1", "    import time\n    time.time()\n    sign = -1")], "read the clock"),
        "keeps state": (
            [
                ("import math\n", "import math\n\n_SEEN = []\n"),
                (
                    "    done = [",
                    "    _SEEN.append(1)\n    rng = type(rng)(rng.bit_generator.jumped(len(_SEEN)))\n    done = [",
                ),
            ],
            "twice with the same seed|resumed from the ledger",
        ),
        "global generator": (
            [("rng.permutation", "__import__('numpy').random.permutation")],
            "the generator of NumPy",
        ),
        "trips over failed trials": (
            [('t.state == "complete" and all(map(math.isfinite, t.values))', "True")],
            "raised IndexError",
        ),
        "NaN is best": (
            [(" and all(map(math.isfinite, t.values))", ""), ("min(chosen, key", "sorted(chosen, key")],
            ".",
        ),
        "leaves the space": (
            [("found.append(space.mutate(best.trace, rng))", 'found.append({**best.trace, "width": 5})')],
            "does not lie in the space",
        ),
        "too many": ([("    return found", "    return found + found")], "proposals, 1 were asked for"),
        "ignores directions": ([('-1 if directions[0] == "max" else 1', "1")], "maximising"),
        "no better than chance": ([("len(done) < 10", "True")], "does not beat random"),
        "always the same": (
            [
                ("space.random(rng)", "space.random(type(rng)(type(rng.bit_generator)(2)))"),
                ("len(done) < 10", "True"),
                ('"needs": []', '"needs": ["baseline"]'),
            ],
            "worse than random search",
        ),
        "changes history": ([("    sign = -1", "    history[0].trace.__dict__\n    sign = -1")], "."),
    },
    "estimator": {
        "changes weights": (
            [("    x, _ =", "    next(iter(net.weights.values())).mul_(1.5)\n    x, _ =")],
            "changed its input: .*weight",
        ),
        "leaves gradients on": (
            [("    x, _ =", "    [w.requires_grad_() for w in net.weights.values()]\n    x, _ =")],
            "changed its input",
        ),
        "global generator": ([(", generator=generator)", ")")], "the generator of torch"),
        "gradient mode": ([("    x, _ =", "    torch.set_grad_enabled(False)\n    x, _ =")], "gradient mode"),
        "default dtype": (
            [("    x, _ =", "    torch.set_default_dtype(torch.float16)\n    x, _ =")],
            "default dtype|raised|.",
        ),
        "no unit": ([('"weights", "min"', '"", "min"')], "has no unit"),
        "no direction": ([('"weights", "min"', '"weights", "down"')], "direction is 'down'"),
        "not finite": ([("return Score(value,", 'return Score(float("nan"),')], "expected a finite"),
        "a tensor": ([("return Score(value,", "return Score(out.mean(),")], "Tensor|expected a Python float"),
        "ranks the wrong way": ([('"weights", "min"', '"weights", "max"')], "rank correlation with params is -"),
        "seed unread": ([("seed: int = 0, ", "")], "."),
        "names matter": ([("float(net.cost(1).params)", "float(len(net.graph.nodes[1].name))")], "names of nodes"),
        "writes a file": (
            [("    x, _ =", '    open("scores.txt", "w").close()\n    x, _ =')],
            "wrote files: .*scores.txt",
        ),
        "reads the clock": ([("    x, _ =", "    import time\n    time.perf_counter()\n    x, _ =")], "read the clock"),
        "environment": (
            [
                (
                    "    x, _ =",
                    "    import os, itertools\n    os.environ['SEEN'] = os.environ.get('SEEN', '') + 'x'\n    x, _ =",
                )
            ],
            "environment variables",
        ),
    },
    "transform": {
        "changes its input": (
            [
                (
                    "    tied = axes",
                    "    [w.add_(1) for w in net.weights.values()]\n    tied = axes",
                )
            ],
            "changed its input",
        ),
        "not exact": ([("weight.clone()", "weight * 2")], "said to be exact"),
        "exact for zero biases only": (
            [("weight.clone()", 'weight.clone() * (-1 if name.endswith("bias") else 1)')],
            "said to be exact",
        ),
        "exact for fresh norms only": (
            [
                ("weight.clone()", 'torch.zeros_like(weight) if name.endswith("running_mean") else weight.clone()'),
                ("from archwright.core.records", "import torch\n\nfrom archwright.core.records"),
            ],
            "said to be exact",
        ),
        "no bound": ([("exact=True", "exact=False")], "needs the measure"),
        "above its bound": (
            [("exact=True", 'exact=False, measure=Figure("change", 0.5, "share"), bound=0.4')],
            "its bound is 0.4",
        ),
        "no unit": ([('len(orders), "1"', 'len(orders), ""')], "have no unit"),
        "returns a net alone": ([("return made, Report", "return made or Report")], "has to return"),
    },
    "rule": {
        "ignores the budget": ([("not clock.spent(step)", "step < 12")], "the budget is not kept"),
        "one step too many": (
            [
                ("step += 1\n", "step += 1\n            extra = 1\n"),
                ("range(1, step + 1)", "range(1, step + 1)"),
                ("not clock.spent(step)", "not clock.spent(step - 1)"),
            ],
            "the budget is not kept",
        ),
        "ignores time": (
            [("not clock.spent(step)", "step < (budget.steps or 4000)")],
            "budget of 0.3 s|not kept",
        ),
        "reads the test split": (
            [('data.splits["train"], batch', "range(len(data.target)), batch")],
            "the test split is read",
        ),
        "does nothing": ([("return to_net(module), Log", "return net, Log")], "the weights are what they were"),
        "learns nothing": ([("loss.backward()", "(-loss).backward()")], "does not fall"),
        "no unit": ([('"train_loss": "nats"', '"train_loss": ""')], "have no unit"),
        "no steps": ([('"step": "steps"', '"step": "1"')], "column 'step'"),
        "global generator": ([("rng.choice(", "__import__('numpy').random.choice(")], "the generator of NumPy"),
        "global dropout": (
            [("    module = build(net).train()", "    torch.rand(1)\n    module = build(net).train()")],
            "the generator of torch",
        ),
        "gradients on": (
            [
                (
                    "return to_net(module), Log",
                    "made = to_net(module)\n    [w.requires_grad_() for w in made.weights.values()]\n"
                    "    return made, Log",
                )
            ],
            "require gradients",
        ),
        "stays in training mode of gradients": (
            [("with torch.enable_grad():", "torch.set_grad_enabled(False)\n    with torch.enable_grad():")],
            "gradient mode",
        ),
        "trains in place": (
            [
                (
                    "    return to_net(module), Log",
                    "    [net.weights[n].copy_(p.detach()) for n, p in module.named_parameters()]\n"
                    "    return to_net(module), Log",
                )
            ],
            "changed its input",
        ),
        "another graph": (
            [
                (
                    "return to_net(module), Log",
                    "made = to_net(module)\n    from archwright import ops\n    g = ops.edit(made.graph)\n"
                    "    doubled = g.finish(g.add('mul', made.graph.outputs[0], value=2.0))\n"
                    "    return type(made)(doubled, made.weights), Log",
                )
            ],
            "another graph",
        ),
    },
    "lens": {
        "no unit": ([('"share")', '"")')], "have no unit"),
        "not a share": ([("float(sure.mean())", "100 * float(sure.mean())")], "expected a share"),
        "a tensor": ([("float(sure.mean())", "sure.mean()")], "Tensor"),
        "ragged chart": ([("range(len(sure))", "range(3)")], "values of x and y"),
        "chart without axes": ([('x="sample", y="share"', "")], "lacks titles"),
        "not JSON": ([("range(len(sure))", "range(len(sure))"), ("sure.tolist()", "sure")], "JSON|sure|length|len"),
        "no text": ([('"Near 1 the network is sure of what it says."', '""')], "no text"),
        "no figures": ([("(figure,)", "()")], "no figure"),
        "changes data": ([("    chart =", "    data.inputs[0][0] += 1\n    chart =")], "changed its input: .*input 0"),
        "threads": ([("    chart =", "    torch.set_num_threads(3)\n    chart =")], "number of threads"),
    },
    "weightspace": {
        "not invariant": ([("w.mean()", "w.flatten()[0]")], "said to be invariant"),
        "not equivariant": (
            [("factor * w for", "w + 0.1 * torch.arange(len(w)).reshape(-1, *[1] * (w.dim() - 1)) for")],
            "said to be equivariant",
        ),
        "looks at neighbours": (
            [("return torch.tensor(rows)", "return torch.tensor(rows) - torch.tensor(rows)[:1]")],
            "beside it",
        ),
        "wrong shape": ([("return torch.tensor(rows)", "return torch.tensor(rows).T")], "return a tensor"),
        "all alike": ([("return torch.tensor(rows)", "return torch.zeros(len(nets), 3)")], "the same code"),
        "claims nothing": ([('"encode": "invariant", ', "")], "expected 'invariant' or 'none'"),
        "decodes zeros": ([("w * scale", "w * 0")], "are zero"),
    },
    "zoo": {
        "timestamp": (
            [
                (
                    "    groups =",
                    "    import datetime\n    run = {**run, 'when': datetime.datetime.now().isoformat()}\n    groups =",
                )
            ],
            "read the clock|different results",
        ),
        "date of today": (
            [
                ("    groups =", "    run = {**run, 'when': str(date.today())}\n    groups ="),
                ("from pathlib", "from datetime import date\nfrom pathlib"),
            ],
            "read the clock: date.today",
        ),
        "hollow section": ([('str(run.get("author", MISSING))', 'str(run.get("author", ""))')], "are empty"),
        "order of fields": ([("for name in sorted(run)", "for name in run")], "order of the fields"),
        "says None": ([('str(run.get("author", MISSING))', 'str(run.get("writer"))')], "says None"),
        "needs a field": ([("    groups =", "    run['data']\n    groups =")], "KeyError|data"),
        "worst first": ([("-float(size)", "float(size)")], "best first|."),
        "writes elsewhere": (
            [('Path(folder) / "net")', 'Path(folder).parent / "archwright-elsewhere-net")')],
            "below the folder",
        ),
        "object address": ([("repr(net)", "object.__repr__(net)")], "different results|another"),
    },
    "runtime": {
        "wrong outputs": (
            [
                (
                    "out = ops.run(net.graph, net.weights, x)",
                    "out = tuple(t * 1.001 for t in ops.run(net.graph, net.weights, x))",
                )
            ],
            "not the network's",
        ),
        "no outputs": ([(", outputs=out", "")], "0 outputs"),
        "no time": ([("Measured(took,", "Measured(0.0,")], "expected what was measured"),
        "no memory": ([("net.cost(len(x[0])).peak_bytes", "None")], "peak_bytes"),
        "training mode": ([("net.weights, x)", "net.weights, x, train=True)")], "not the network's|changed its input"),
    },
    "task": {
        "test leaks": ([('train = x[splits["train"]]', "train = x")], "more than the train split"),
        "test leaks unsaid": (
            [('train = x[splits["train"]]', "train = x"), (', {"standardised": "feature"}', "")],
            "the test split leaks",
        ),
        "samples twice": (
            [("    target = table", "    table = np.concatenate([table, table])\n    target = table")],
            "stand in the train split too",
        ),
        "no test split": (
            [("np.random.default_rng(seed))\n    x =", "np.random.default_rng(seed), test=0)\n    x =")],
            "split 'test' is empty",
        ),
        "float64": ([(".astype(np.float32)", "")], "expected float32"),
        "NaN": ([("    return Data(", "    x[0, 0] = np.nan\n    return Data(")], "not finite"),
        "seed unread": (
            [("np.random.default_rng(seed))\n    x =", "np.random.default_rng())\n    x =")],
            "different results",
        ),
        "flow over budget": ([("(budget.steps,)", "(budget.steps + 1,)")], "steps, the budget was"),
        "writes": (
            [
                (
                    "    table = np.loadtxt(source)",
                    "    table = np.loadtxt(source)\n    np.save(str(source) + '.npy', table)",
                )
            ],
            "wrote files",
        ),
    },
}

# what contracts allow besides: kind -> variant -> replacements
VARIANTS = {
    "block": {
        "several values in and out": [
            ("[None, 5, 6]}", '[None, 5, 6]}, {"shape": [None, 5], "dtype": "int64", "high": 4}'),
            ("[None, 3, 10]}", '[None, 3, 10]}, {"shape": [None, 3], "dtype": "int64", "high": 4}'),
            ('{"inputs": [{"shape": [None, 7]}], "hp"', '{"hp"'),
            ("g: Editor, x: str,", "g: Editor, x: str, ids: str,"),
            ("    return g.add(", '    z = g.add("embedding", ids, num=4, dim=g.shape(x)[-1])\n    return g.add('),
            ('g.add("add", x, y)', 'g.add("add", x, y), g.add("add", y, z)'),
        ],
        "without weights": [
            ('    y = g.add("layer_norm", x, name="norm")\n', "    y = x\n"),
            ('g.add("linear", y, out=hidden, name="up")', "y"),
            ('g.add("linear", y, out=g.shape(x)[-1], name="down")', 'g.add("sin", y)'),
        ],
    },
    "space": {
        "not a supernet": [('"supernet": {"fixed": {"act": "relu"}}', '"supernet": None')],
        "a mixed supernet": [('"supernet": {"fixed"', '"supernet": {"join": "mix", "fixed"')],
        "an output of another shape": [
            ("return g.finish(", 'x = g.add("unsqueeze", x, dim=1)\n    return g.finish('),
            ('"hp": {"widths": [4, 8]},', '"hp": {"widths": [4, 8]}, "output": [None, 1, 3],'),
        ],
    },
    "strategy": {
        "learns first": [
            ("import math\n", "import math\n\n\ndef learn(space, data, budget, rng, *, pool=5):\n"
             "    return {'best': pool}\n"),
            ("pool: int = 5", "pool: int = 5, state=None"),
            ("    sign = -1", "    assert state == {'best': pool}\n    sign = -1"),
        ],
        "two objectives": [('{"hp": {"pool": 5}}', '{"hp": {"pool": 5}, "objectives": 2, "trials": 40}')],
        "a bench of its own": [
            ("import math\n", "import math\n\nfrom archwright.core.checks import bench\n\n\ndef case(seed):\n"
             "    return bench.space(real=True), lambda trace: (bench.error(trace),)\n"),
        ],
        "stops": [("    found = []", "    if len(history) > 58:\n        return []\n    found = []")],
    },
    "estimator": {
        "learns from history": [
            ("import torch\n", "import torch\n\n\ndef fit(history, space, *, seed=0):\n"
             "    return {t.trace['width']: t.values[0] for t in sorted(history, key=lambda t: t.number)}\n"),
            ("seed: int = 0,", "seed: int = 0, state=None, trace=None,"),
            ("    value =", "    assert trace['width'] in state\n    value ="),
        ],
        "nothing stored fits": [('"target": "params", "floor": 0.9', '"target": None')],
        "measures time": [
            ('"needs": []', '"needs": ["clock"]'), ("    x, _", "    import time\n    time.time()\n    x, _"),
        ],
        "a case of its own": [
            ('"data": "table", ', ""),
            ("import torch\n", "import torch\n\nfrom archwright.core.checks import toys\n\n\ndef case(seed):\n"
             "    data = toys.data('points')\n    return toys.net('attention', data, seed), data\n"),
        ],
    },
    "transform": {
        "joins several nets": [
            ("from archwright.core.records", "from archwright.core.checks import toys\nfrom archwright.core.records"),
            ("def apply(net, data, *", "def case(seed):\n    data = toys.data()\n"
             "    return (toys.net('mlp', data, seed), toys.net('mlp', data, seed + 1)), data\n\n\n"
             "def apply(nets, data, *"),
            ("    tied =", "    net = nets[0]\n    tied ="),
            ('"data": "image", "net": "residual"', ""),
        ],
        "within its bound": [("exact=True", 'exact=False, measure=Figure("change", 0.3, "share"), bound=0.4')],
        "draws random numbers": [
            ("classes: int = 100", "classes: int = 100, seed: int = 0"),
            ("(reversed(range(a.size)))", "(range(a.size))[::-1]"),
        ],
    },
    "rule": {
        "rises": [
            ('"steps": 40', '"steps": 40, "rises": "right"'),
            ('{"step": "steps", ', '{"right": "1", "step": "steps", '),
            ('columns = {', 'columns = {"right": tuple([-v for v in losses]), '),
        ],
        "ends early": [('"budget")', '"done")')],
    },
    "weightspace": {
        "is trained": [
            ("import torch\n", "import torch\n\n\ndef fit(nets, targets, budget, rng, *, factor=1.0):\n"
             "    return torch.ones(1)\n"),
            ("factor: float = 1.0) -> torch.Tensor", "factor: float = 1.0, state=None) -> torch.Tensor"),
            ("    rows =", "    assert state == 1\n    rows ="),
        ],
        "claims nothing": [('"invariant"', '"none"'), ('"equivariant"', '"none"'), ("w.mean()", "w.flatten()[0]")],
    },
    "runtime": {
        "approximates": [
            ('"net": "conv"', '"net": "conv", "bound": 0.01'),
            ("ops.run(net.graph, net.weights, x)", "tuple([t * 1.002 for t in ops.run(net.graph, net.weights, x)])"),
        ],
    },
    "task": {"built-in data": [
        ("def case(seed, folder):", "def unused(seed, folder):"), ('{"hp": {}', '{"source": "iris", "hp": {}'),
        ("    table = np", "    from archwright.data.builtin import builtin\n\n"
         "    return builtin(source, seed)\n    table = np"),
        ("out=2", "out=3"),
    ]},
}  # fmt: skip
ALLOWED = [(kind, variant) for kind, variants in VARIANTS.items() for variant in variants]

CASES = [(kind, fault) for kind, faults in FAULTS.items() for fault in faults]


@pytest.fixture
def table():
    """The table of ops, put back afterwards."""
    known = dict(ops.table())
    yield
    ops.table().clear()
    ops.table().update(known)


@pytest.mark.parametrize("kind", KINDS)
def test_right_parts_pass_and_leave_no_file_behind(kind, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    part = read(RIGHT / f"{kind}.py")
    count = check_part(part)
    left = [path.name for path in tmp_path.iterdir() if path.name != f"torchinductor_{getuser()}"]  # torch's own cache
    assert not left
    assert count >= suite(kind).MINIMUM
    assert capsys.readouterr().out == f"{kind}/{kind}: {count} checks\n"


def broken(kind, replacements, folder):
    """A right part with some text replaced."""
    text = (RIGHT / f"{kind}.py").read_text()
    for old, new in replacements:
        assert old in text, f"the fixture has no {old!r}"
        text = text.replace(old, new)
    (folder / f"{kind}.py").write_text(text)
    return read(folder / f"{kind}.py")


@pytest.mark.parametrize(("kind", "variant"), ALLOWED, ids=[f"{kind}-{variant}" for kind, variant in ALLOWED])
def test_what_the_contracts_allow_passes(kind, variant, tmp_path):
    assert check_part(broken(kind, VARIANTS[kind][variant], tmp_path)) >= suite(kind).MINIMUM


@pytest.mark.parametrize(("kind", "fault"), CASES, ids=[f"{kind}-{fault}" for kind, fault in CASES])
def test_faults_are_found(kind, fault, tmp_path, table, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rule, "_SLACK", 0.5)
    replacements, message = FAULTS[kind][fault]
    part = broken(kind, replacements, tmp_path)
    with pytest.raises(AssertionError, match=message) as caught:
        check_part(part)
    assert str(caught.value).startswith(f"{kind}/{kind}: ")
