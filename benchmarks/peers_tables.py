"""What benchmarks/search.py compares a search over tables with: three baselines, each as a competent user would run it.

random_search_mlp   scikit-learn's MLP in a pipeline, tuned by RandomizedSearchCV until the seconds are over
tpe_mlp             a plain PyTorch MLP tuned by Optuna's TPE sampler in two processes for the same seconds
boosting            HistGradientBoosting with its defaults and native categories; it takes what time it takes

All of them get a `Job`: rows with targets, which each divides as it likes, and the rows of the test without. Each fits
its last model on all rows that have targets.
"""

from __future__ import annotations

import math
import multiprocessing
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
import pandas as pd
import torch
import torch.nn.functional as F
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.model_selection import KFold, RandomizedSearchCV, StratifiedKFold
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, QuantileTransformer, StandardScaler
from torch import Tensor, nn

Array = NDArray[Any]
Config = Mapping[str, Any]

SMALL = 2000
"""Below this many rows a candidate is judged by cross-validation: a single validation split of so few rows is noise."""


@dataclass(frozen=True)
class Job:
    """Rows to learn from and rows to predict. `y` holds class codes from 0, or numbers. Columns of strings are
    categories, the others numbers, with NaN for missing."""

    x: pd.DataFrame
    y: Array
    test: pd.DataFrame
    task: str
    seconds: float
    seed: int

    @property
    def classification(self) -> bool:
        return self.task == "classification"

    @property
    def categories(self) -> list[str]:
        return [str(c) for c in self.x if not pd.api.types.is_numeric_dtype(self.x[c])]

    @property
    def numbers(self) -> list[str]:
        return [str(c) for c in self.x if pd.api.types.is_numeric_dtype(self.x[c])]

    def folds(self) -> list[tuple[Array, Array]]:
        """(rows to train on, rows to judge by): four where rows are few, else one with a fifth held back."""
        kind = StratifiedKFold if self.classification else KFold
        parts = kind(4 if len(self.y) < SMALL else 5, shuffle=True, random_state=self.seed).split(self.x, self.y)
        return list(parts) if len(self.y) < SMALL else [next(parts)]


class Answer(NamedTuple):
    """Class codes or numbers for the test rows, the size of the model in weights, how many candidates were tried, and
    the seconds from when the budget began to when the last model was fitted: starting processes is not counted."""

    output: Array
    params: int | None
    tried: int
    seconds: float


# ------------------------------------------------------------------------------------------------------------ boosting
def boosting(job: Job) -> Answer:
    """Defaults throughout. Categories are native: no set has a column with more than the 255 that it takes."""
    start = time.perf_counter()
    known = {c: pd.CategoricalDtype(sorted(job.x[c].dropna().unique())) for c in job.categories}

    def native(x: pd.DataFrame) -> pd.DataFrame:
        return x.assign(**{c: x[c].where(x[c].isin(kind.categories)).astype(kind) for c, kind in known.items()})

    kind = HistGradientBoostingClassifier if job.classification else HistGradientBoostingRegressor
    model = kind(random_state=job.seed).fit(native(job.x), job.y)
    seconds = time.perf_counter() - start
    return Answer(model.predict(native(job.test)), None, 1, seconds)


# --------------------------------------------------------------------------------------------- scikit-learn, at random
def mlp_pipeline(job: Job) -> Any:
    """Gaps filled and flagged, numbers scaled, categories one-hot, an MLP; a numeric target is standardised."""
    numbers = Pipeline([("fill", SimpleImputer(add_indicator=True)), ("scale", StandardScaler())])
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = ColumnTransformer([("numbers", numbers, job.numbers), ("categories", one_hot, job.categories)])
    kind = MLPClassifier if job.classification else MLPRegressor
    model = Pipeline([("columns", columns), ("mlp", kind(random_state=job.seed))])
    return model if job.classification else TransformedTargetRegressor(model, transformer=StandardScaler())


def mlp_choices(job: Job) -> dict[str, Any]:
    rows = len(job.y)
    quantiles = QuantileTransformer(n_quantiles=min(1000, rows // 4), output_distribution="normal")
    small = rows < SMALL
    widths = [(64,), (128,), (256,), (512,), (64, 64), (128, 128), (256, 256), (256, 128, 64), (128, 128, 128)]
    choices = {
        "columns__numbers__scale": [StandardScaler(), quantiles],
        "mlp__hidden_layer_sizes": widths,
        "mlp__activation": ["relu", "relu", "tanh"],
        "mlp__alpha": loguniform(1e-6, 1),
        "mlp__learning_rate_init": loguniform(3e-4, 1e-2),
        "mlp__batch_size": [32, 64, 128] if small else [128, 256, 512] if rows > 10_000 else [32, 64, 128, 256],
        "mlp__early_stopping": [True, False] if rows < 10_000 else [True],
        "mlp__solver": ["adam", "adam", "lbfgs"] if small else ["adam"],
    }
    return choices if job.classification else {f"regressor__{name}": value for name, value in choices.items()}


def random_search_mlp(job: Job) -> Answer:
    """RandomizedSearchCV with two jobs, in rounds until the seconds are over, its refit included; the first round tries
    the MLP's defaults. A round is only begun if by the figures of those before it can end in time, so that the last may
    end somewhat early or late."""
    model, choices, folds = mlp_pipeline(job), mlp_choices(job), job.folds()
    Parallel(n_jobs=2)(delayed(clone)(model) for _ in range(16))  # the processes are there before the clock starts
    start = time.perf_counter()
    scoring = "accuracy" if job.classification else "neg_root_mean_squared_error"
    prefix = "" if job.classification else "regressor__"
    best: tuple[float, dict[str, Any]] = (-math.inf, {})
    tried, refit, costs = 0, 0.0, list[float]()
    rng = np.random.RandomState(job.seed)
    drawn: dict[str, Any] = {f"{prefix}mlp__max_iter": [200]}
    count = 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # trainings that end early, folds that lack a category
        while True:
            search = RandomizedSearchCV(
                model, drawn, n_iter=count, scoring=scoring, n_jobs=2, cv=folds, refit=False, random_state=rng
            )
            results = search.fit(job.x, job.y).cv_results_
            tried += count
            took = (results["mean_fit_time"] + results["mean_score_time"]) * len(folds)
            top = int(np.argmax(np.nan_to_num(results["mean_test_score"], nan=-math.inf)))
            if results["mean_test_score"][top] > best[0] or not best[1]:
                best = (float(results["mean_test_score"][top]), dict(results["params"][top]))
                refit = float(results["mean_fit_time"][top]) * len(job.y) / len(folds[0][0])
            costs = [*(costs if drawn is choices else []), *took]  # the defaults say little about what others take
            left = job.seconds - 1.2 * refit - (time.perf_counter() - start)
            # two run at a time; rounds grow as it becomes known what candidates take, and the last are small again
            usual = float(np.mean(costs))
            count = max(2, min(2 * count, int(2 * (left / 2 - max(costs) / 2) / usual)))
            if usual * (1.5 if len(costs) > 2 else 3.0) > left:
                break
            drawn = choices
        fitted = model.set_params(**best[1]).fit(job.x, job.y)
    seconds = time.perf_counter() - start
    mlp = (fitted if job.classification else fitted.regressor_).named_steps["mlp"]
    params = sum([w.size for w in (*mlp.coefs_, *mlp.intercepts_)])
    return Answer(fitted.predict(job.test), params, tried, seconds)


# ----------------------------------------------------------------------------------------------------- PyTorch and TPE
class Encoder:
    """Numbers filled and scaled, with a flag for each column that has gaps, and categories as codes, 0 for unknown."""

    def __init__(self, job: Job, rows: Array, quantiles: bool) -> None:
        x = job.x.iloc[rows]
        normal = QuantileTransformer(n_quantiles=min(1000, len(rows) // 4), output_distribution="normal")
        scale = [normal, StandardScaler()] if quantiles else [StandardScaler()]
        steps = [SimpleImputer(add_indicator=True), *scale]
        self.numbers = Pipeline([(str(i), step) for i, step in enumerate(steps)]).fit(x[job.numbers])
        self.codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-1)
        self.codes.fit(x[job.categories])
        self.sizes = [len(values) + 1 for values in self.codes.categories_] if job.categories else []
        self.names = (job.numbers, job.categories)

    def __call__(self, x: pd.DataFrame) -> tuple[Tensor, Tensor]:
        numbers, categories = self.names
        codes = self.codes.transform(x[categories]) + 1 if categories else np.zeros((len(x), 0))
        return torch.tensor(self.numbers.transform(x[numbers]), dtype=torch.float32), torch.tensor(codes).long()


class Mlp(nn.Module):
    """Numbers and embedded or one-hot categories, hidden layers of one width with norm and dropout, a linear output."""

    def __init__(self, config: Config, numbers: int, sizes: list[int], outputs: int) -> None:
        super().__init__()
        wide = [size if config["one_hot"] else min(32, (size + 1) // 2) for size in sizes]
        self.embed = nn.ModuleList([nn.Embedding(*pair) for pair in zip(sizes, wide, strict=True)])
        if config["one_hot"]:
            for table in self.embed:
                table.weight = nn.Parameter(torch.eye(table.num_embeddings), requires_grad=False)
        width, now, layers = config["width"], numbers + sum(wide), []
        norm = {"none": nn.Identity, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}[config["norm"]]
        act = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}[config["act"]]
        for _ in range(config["layers"]):
            hidden = nn.Linear(now, width)
            layers += [hidden, nn.Identity() if norm is nn.Identity else norm(width), act()]
            layers += [nn.Dropout(config["dropout"])] if config["dropout"] else []
            now = width
        self.body = nn.Sequential(*layers, nn.Linear(now, outputs))

    def forward(self, numbers: Tensor, codes: Tensor) -> Tensor:
        return self.body(torch.cat([numbers, *[table(codes[:, i]) for i, table in enumerate(self.embed)]], 1))


CHECKS = 20
"""How often a training is judged by the validation rows, and where it may be stopped."""


def draw(trial: optuna.Trial, job: Job) -> dict[str, Any]:
    large, small = len(job.y) > 10_000, len(job.y) < SMALL
    return {
        "quantiles": trial.suggest_categorical("quantiles", (False, True)),
        "one_hot": trial.suggest_categorical("one_hot", (False, True)) if job.categories else False,
        "layers": trial.suggest_int("layers", 1, 4),
        "width": trial.suggest_int("width", 16, 512, log=True),
        "norm": trial.suggest_categorical("norm", ("none", "batch", "layer")),
        "act": trial.suggest_categorical("act", ("relu", "silu", "gelu")),
        "dropout": trial.suggest_float("dropout", 0.0, 0.5, step=0.1),
        "lr": trial.suggest_float("lr", 3e-4, 3e-2, log=True),
        "decay": trial.suggest_float("decay", 1e-6, 0.3, log=True),
        "batch": trial.suggest_categorical("batch", (256, 512, 1024) if large else (32, 64, 128)),
        "epochs": trial.suggest_int("epochs", *((32, 256) if small else (5, 30) if large else (20, 120)), log=True),
        "smooth": trial.suggest_categorical("smooth", (0.0, 0.1)) if job.classification else 0.0,
    }


def defaults(job: Job) -> dict[str, Any]:
    """A sound MLP to begin with."""
    large, small = len(job.y) > 10_000, len(job.y) < SMALL
    found = {"quantiles": False, "layers": 2, "width": 128, "norm": "none", "act": "relu", "dropout": 0.1, "lr": 2e-3}
    found |= {"decay": 1e-2, "batch": 256 if large else 64, "epochs": 100 if small else 10 if large else 40}
    return found | ({"one_hot": False} if job.categories else {}) | ({"smooth": 0.0} if job.classification else {})


def fit_mlp(
    job: Job,
    config: Config,
    rows: Array,
    *,
    judged: Array | None = None,
    stop: int = CHECKS,
    deadline: float = math.inf,
    report: Callable[[int, float], None] = lambda step, value: None,
) -> tuple[Callable[[pd.DataFrame], Array], list[float], int]:
    """AdamW with a cosine schedule, stopped after `stop` of its 20 parts. Returns what predicts, the share wrong or the
    RMSE on the rows `judged` after each part, and the number of weights."""
    torch.manual_seed(job.seed)
    encode = Encoder(job, rows, config["quantiles"])
    inputs = encode(job.x.iloc[rows])
    if job.classification:
        middle, deviation = 0.0, 1.0
        target = torch.tensor(job.y[rows]).long()
    else:
        middle, deviation = float(job.y[rows].mean()), float(job.y[rows].std()) or 1.0
        target = torch.tensor((job.y[rows] - middle) / deviation, dtype=torch.float32)
    outputs = int(job.y.max()) + 1 if job.classification else 1
    model = Mlp(config, inputs[0].shape[1], encode.sizes, outputs)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=config["lr"], weight_decay=config["decay"], fused=True)
    batch = min(config["batch"], len(rows))
    per_epoch = len(rows) // batch  # what is left over is in another epoch's order
    total = per_epoch * config["epochs"]
    marks = {math.ceil(total * (i + 1) / CHECKS): i for i in range(CHECKS)}
    check = None if judged is None else encode(job.x.iloc[judged])

    def answer(pair: tuple[Tensor, Tensor]) -> Array:
        model.eval()
        with torch.no_grad():
            out = torch.cat([model(*part) for part in zip(pair[0].split(4096), pair[1].split(4096), strict=True)])
        model.train()
        return out.argmax(1).numpy() if job.classification else out[:, 0].double().numpy() * deviation + middle

    curve: list[float] = []
    step = 0
    while step < total and len(curve) < stop:
        order = torch.randperm(len(rows))
        for index in order[: per_epoch * batch].split(batch):
            for group in optimizer.param_groups:
                group["lr"] = config["lr"] * 0.5 * (1 + math.cos(math.pi * step / total))
            out = model(inputs[0][index], inputs[1][index])
            if job.classification:
                loss = F.cross_entropy(out, target[index], label_smoothing=config["smooth"])
            else:
                loss = F.mse_loss(out[:, 0], target[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if time.monotonic() > deadline:
                raise optuna.TrialPruned("the time is over")
            if step in marks:
                found = wrong(job, job.y[judged], answer(check)) if check is not None else 0.0
                curve.append(found)
                if not math.isfinite(found):
                    raise optuna.TrialPruned("diverged")
                report(marks[step], found)
                if len(curve) >= stop:
                    break
    return lambda x: answer(encode(x)), curve, sum([p.numel() for p in weights])


def wrong(job: Job, y: Array, output: Array) -> float:
    """Share of wrong answers, or RMSE."""
    return float(np.mean(y != output) if job.classification else np.sqrt(np.mean((y - output) ** 2)))


def _work(job: Job, path: str, ready: Any, number: int) -> None:
    """One of the two processes: trials until the time is over, less what the refit of the best one will take."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(path))
    study = optuna.load_study(
        study_name="mlp",
        storage=storage,
        sampler=optuna.samplers.TPESampler(seed=2 * job.seed + number, multivariate=True, constant_liar=True),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=8, n_warmup_steps=1 if len(job.y) < SMALL else 5),
    )
    folds = job.folds()

    def objective(trial: optuna.Trial) -> float:
        left = end - 1.2 * _refit_seconds(study)
        config, curves, start = draw(trial, job), [], time.monotonic()
        for fold, (rows, judged) in enumerate(folds):

            def report(step: int, value: float) -> None:
                if len(folds) == 1:
                    trial.report(value, step)
                    if trial.should_prune():
                        raise optuna.TrialPruned

            _, curve, _ = fit_mlp(job, config, rows, judged=judged, deadline=left, report=report)
            curves.append(curve)
            if len(folds) > 1:
                trial.report(float(np.mean([min(c) for c in curves])), fold)
                if trial.should_prune():
                    raise optuna.TrialPruned
        mean = np.mean(curves, axis=0)
        parts = int(mean.argmin()) + 1
        took = (time.monotonic() - start) / sum([len(rows) for rows, _ in folds])  # for each row
        trial.set_user_attr("parts", parts)
        trial.set_user_attr("refit", took * len(job.y) * parts / CHECKS)
        return float(mean.min())

    ready.wait(120)  # the clock starts when both processes are there
    end = time.monotonic() + job.seconds
    study.optimize(objective, timeout=job.seconds)


def _refit_seconds(study: optuna.Study) -> float:
    try:
        return float(study.best_trial.user_attrs.get("refit", 0.0))
    except ValueError:  # no trial has ended
        return 0.0


def tpe_mlp(job: Job) -> Answer:
    """Two processes with one thread each work on one study; then the best configuration is trained on all rows, for as
    many parts of its schedule as were best by validation. If no trial has ended, the default configuration is taken."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "journal")
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(path))
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(study_name="mlp", storage=storage)
        study.enqueue_trial(defaults(job))
        ready = context.Barrier(3)
        workers = [context.Process(target=_work, args=(job, path, ready, n)) for n in range(2)]
        for worker in workers:
            worker.start()
        ready.wait(120)
        begun = time.perf_counter()
        for worker in workers:
            worker.join()
        done = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
        config, parts = (study.best_params, study.best_trial.user_attrs["parts"]) if done else (defaults(job), CHECKS)
        tried = len(study.trials)
    config = {"one_hot": False, "smooth": 0.0} | config
    predict, _, params = fit_mlp(job, config, np.arange(len(job.y)), stop=parts)
    seconds = time.perf_counter() - begun
    return Answer(predict(job.test), params, tried, seconds)
