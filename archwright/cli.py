"""The command line. Every command imports what it needs when it runs, so that --help answers at once."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from archwright.errors import ArchwrightError, FormatError

if TYPE_CHECKING:
    from archwright.net.net import Net

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="archwright makes neural networks: search, train, shrink, explain, document and export them.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from archwright import __version__

        typer.echo(f"archwright {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def inspect(
    what: Annotated[str, typer.Argument(help="A folder written by net.save, or module:factory of a torch module.")],
    batch: Annotated[int, typer.Option(min=1, help="Batch size of the costs.")] = 1,
    svg: Annotated[Path | None, typer.Option(help="Write the drawing to this file.")] = None,
    axes: Annotated[bool, typer.Option("--axes", help="Also list the classes of tied axes.")] = False,
    allow_opaque: Annotated[
        bool, typer.Option("--allow-opaque", help="Load a folder that calls torch operators by name.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Cost table and drawing of a network, without running it."""
    from archwright.net.axes import axes as find_axes

    net = _open(what, allow_opaque)
    cost = net.cost(batch)
    if svg is not None:
        from archwright.exchange.draw import draw

        draw(net, svg, batch=batch)
        typer.echo(f"drawing: {svg}", err=True)
    classes = find_axes(net).classes if axes else ()
    if as_json:
        found = {"key": net.graph.key(), "opaque_share": net.opaque_share, "cost": cost.as_dict()}
        if axes:
            found["axes"] = [
                {
                    "size": c.size,
                    "members": [[m.slot, m.param, m.dim] for m in c.members],
                    "pinned": c.pinned,
                    "permute": c.permute,
                    "remove": c.remove,
                    "grow": c.grow,
                }
                for c in classes
            ]
        typer.echo(json.dumps(found))
        return
    typer.echo(str(cost))
    typer.echo(f"key {net.graph.key()}, opaque share {net.opaque_share:.1%}")
    for c in classes:
        can = ", ".join(verb for verb in ("permute", "remove", "grow") if getattr(c, verb)) or f"pinned: {c.pinned}"
        where = ", ".join(f"{m.weight}[{m.dim}]" for m in c.members[:4]) + (" ..." if len(c.members) > 4 else "")
        typer.echo(f"axis {c.number}: {c.size} units ({can}) in {where}")


@app.command()
def parts(
    kind: Annotated[str | None, typer.Option(help="Only parts of this kind, such as block or strategy.")] = None,
    use: Annotated[list[Path] | None, typer.Option(help="A part of your own: the path of its file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the parts: kind, name, id, year, arXiv, whether its claim held, title."""
    from archwright.core import registry
    from archwright.flows import catalogue

    for path in use or ():
        registry.use(path)
    found = catalogue.rows(kind)
    typer.echo(json.dumps({"parts": found}, ensure_ascii=False) if as_json else catalogue.table(found))


@app.command()
def claims(
    names: Annotated[list[str] | None, typer.Argument(help="Parts: mlp_mixer, mlp-mixer or block/mlp_mixer.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Run the claims of all parts.")] = False,
    changed: Annotated[
        bool, typer.Option("--changed", help="Run those of parts that changed since theirs was recorded.")
    ] = False,
    use: Annotated[list[Path] | None, typer.Option(help="A part of your own: the path of its file.")] = None,
    out: Annotated[Path | None, typer.Option(help="Record in this file instead of docs/claims.json.")] = None,
    record: Annotated[bool, typer.Option(help="Whether to record what came out.")] = True,
    seed: Annotated[int, typer.Option(help="Seed of the claims.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run what parts claim, print the figures beside the papers' own, and record them, held or not."""
    from archwright.core import registry
    from archwright.flows import catalogue
    from archwright.flows.claims import changed as changed_parts
    from archwright.flows.claims import claims as run_claims
    from archwright.flows.claims import line

    if bool(names) + all_ + changed != 1:
        raise FormatError("expected one of: names of parts, --all, --changed")
    for path in use or ():
        registry.use(path)
    if changed:
        names = [part.key for part in changed_parts(out or catalogue.CLAIMS)]
        if not names:
            typer.echo("no part has changed since its claim was recorded", err=True)
            if as_json:
                typer.echo(json.dumps({"claims": {}}))
            return
    target = (out or catalogue.CLAIMS) if record else None
    if target == catalogue.CLAIMS and not catalogue.CLAIMS.parent.is_dir():
        raise FormatError(f"there is no folder {catalogue.CLAIMS.parent} to record in: say --out FILE or --no-record")
    found = run_claims(
        names or (),
        seed=seed,
        out=target,
        progress=lambda part, record: typer.echo(line(part, record), err=as_json),
    )
    if target == catalogue.CLAIMS and catalogue.REFERENCE.is_dir():
        catalogue.write(catalogue.REFERENCE)
    if as_json:
        typer.echo(json.dumps({"claims": found}, ensure_ascii=False))


@app.command()
def search(
    data: Annotated[str, typer.Argument(help="A data file, a folder of class folders, or a built-in name: digits.")],
    target: Annotated[str | None, typer.Option(help="The column to predict; by default the last one.")] = None,
    budget: Annotated[str | None, typer.Option(help="Wall time in all, such as 60s, 5m or 1h; 5m by default.")] = None,
    objective: Annotated[
        str, typer.Option(help="error or any scikit-learn metric; params, flops, bytes, memory, energy, latency.")
    ] = "error",
    max_: Annotated[
        str | None, typer.Option("--max", help="Limits that are never exceeded: params=20k,latency=1ms.")
    ] = None,
    space: Annotated[str | None, typer.Option(help="A space part; by default what suits the data.")] = None,
    strategy: Annotated[str, typer.Option(help="A strategy part, or optuna:TPESampler and so on.")] = "portfolio",
    from_: Annotated[
        Path | None, typer.Option("--from", help="Begin at the network of a bundle or saved net.")
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Candidates to train, instead of or within a time.")] = None,
    seed: Annotated[int, typer.Option(help="Decides splits, proposals and weights.")] = 0,
    storage: Annotated[str | None, typer.Option(help="Optuna storage URL of the ledger.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the bundle; NAME-net by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search that was begun there.")] = False,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes; one a core by default.")] = None,
    task: Annotated[str | None, typer.Option(help="classification or regression, if not what is inferred.")] = None,
    time: Annotated[str | None, typer.Option(help="Split by the order of this column: the newest rows test.")] = None,
    group: Annotated[str | None, typer.Option(help="Keep rows with equal values of this column together.")] = None,
    use: Annotated[list[Path] | None, typer.Option(help="A part of your own: the path of its file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Find a better network for data within a budget, and write it as a bundle."""
    began = monotonic()  # what is spent on the imports below counts too
    from archwright.flows.interrupts import Interrupts

    with Interrupts() as interrupts:  # what is found is written, whenever Ctrl-C is pressed
        try:
            with interrupts.open():
                from archwright import live
                from archwright.core import registry
                from archwright.flows import bundle
                from archwright.flows.search import search as run_search

                for path in use or ():
                    registry.use(path)
                name = live.name_of(data)
                folder = bundle.place(out or Path(f"{name}-net"))
                work = folder.with_name(f"{folder.name}.search")
                given = {"task": task, "time": time, "group": group}
            with live.shown() as progress:
                result = run_search(
                    data, target, budget=budget, objective=objective, limit=max_, space=space, strategy=strategy,
                    start=from_, trials=trials, seed=seed, folder=work, storage=storage, name=name, resume=resume,
                    workers=workers, progress=progress, command=live.command(), began=began, interrupts=interrupts,
                    **{key: value for key, value in given.items() if value is not None},
                )  # fmt: skip
        except KeyboardInterrupt:
            raise ArchwrightError("stopped before there was a network: nothing is written") from None
        result.save(folder)
        live.clean(work)
        live.summary(result.run, folder)
        if as_json:
            record = {"bundle": str(folder), **bundle.plain(result.run)}
            typer.echo(json.dumps(record, ensure_ascii=False, allow_nan=False))


@app.command()
def predict(
    bundle: Annotated[Path, typer.Argument(help="A bundle that archwright search wrote.")],
    data: Annotated[str, typer.Argument(help="Data of the same kind as it was trained on; a target is not needed.")],
    out: Annotated[Path | None, typer.Option(help="Write the predictions to this CSV file.")] = None,
    proba: Annotated[bool, typer.Option("--proba", help="Also the probability of each class.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """What a bundle's network predicts for data, one line a sample; with targets in the data, also how well."""
    from archwright import live
    from archwright.flows.predict import predict as run_predict

    found = run_predict(bundle, data, proba=proba)
    for name, value in found.scores.items():
        typer.echo(f"{name} {value:.6g}", err=True)
    if out is not None:
        live.write(out, found.csv())
        typer.echo(f"{len(found.predicted)} predictions: {out}", err=True)
    if as_json:
        typer.echo(json.dumps(found.as_dict(), ensure_ascii=False))
    elif out is None:
        typer.echo(found.csv(), nl=False)


def _open(what: str, allow_opaque: bool) -> Net:
    """A saved net, or module:factory called without arguments and captured."""
    from archwright.net.net import load

    if Path(what).is_dir():
        return load(what, allow_opaque=allow_opaque)
    module, colon, name = what.partition(":")
    if not colon:
        raise FormatError(f"got '{what}', expected a folder written by net.save, or module:factory")
    import importlib

    from archwright.exchange.capture import capture

    sys.path.insert(0, "")
    try:
        made = getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError) as error:
        raise FormatError(f"'{what}' cannot be imported ({error}): expected module:factory") from None
    if not (isinstance(made, tuple) and len(made) == 2):
        raise FormatError(f"'{what}' returned {type(made).__name__}, expected a pair (module, example inputs)")
    return capture(*made)


def main() -> None:
    """Run the command line. Errors about the user's input are one sentence and exit code 2; Ctrl-C is 130."""
    try:
        app()
    except ArchwrightError as error:
        typer.echo(f"archwright: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("archwright: stopped", err=True)
        sys.exit(130)
    except SystemExit as ended:
        if ended.code == 130:  # Ctrl-C so early that nobody but typer took it, and typer says nothing
            typer.echo("archwright: stopped", err=True)
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        typer.echo(f"archwright: {error.strerror}: {error.filename or 'a file'} cannot be written or read", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
