"""The layout of DESIGN.md section 2, enforced on the syntax tree: import ranks, fences, importability, public names."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import blemish

SRC = Path(blemish.__file__).parent
RANK = {
    "escaping": -0.5,
    "errors": 0,
    "_version": 0,
    "seal": 0.5,
    "files": 0.5,
    "memory": 0,
    "signing": 0.6,
    "extras": 0.5,
    "progress": 0.5,
    "terminating": 0.5,
    "_lazy": 0.6,
    "options": 0.7,
    "functional": 1,
    "settings": 1,
    "presets": 1,
    "data": 2,
    "features": 2,
    "synthetic": 3,
    "metrics": 3,
    "visualization": 3,
    "pre_processing": 3,
    "post_processing": 4,
    "models": 5,
    "manifest": 5.5,  # torch-free
    "catalog": 5.6,  # torch-free
    "artifact": 6,
    "engine": 6,
    "runtime": 7,
    "export": 7.5,  # tries its files out in sessions
    "predictions": 7.6,  # torch-free, below report and serve
    "report": 8,
    "trials": 8,  # fits and measures many detectors through the engine; knows neither flags nor files of settings
    "monitor": 8,
    "serve": 8.5,
    "scale": 8.2,  # runs the jobs of trials elsewhere
    "legacy": 8.5,
    "cli": 9,
    "__main__": 10,
}
# Third-party package -> the only places that may import it (path prefixes below src/blemish).
FENCES = {
    "lightning": (
        "data/datamodule.py",
        "engine/",
        "legacy/",
    ),
    "timm": ("features/",),
    "onnxruntime": ("runtime/", "export/int8.py"),
    "openvino": ("runtime/", "export/openvino.py", "export/_nncf.py"),
    "nncf": ("export/_nncf.py",),
    "onnx": ("export/",),
    "onnxscript": ("export/",),
    "matplotlib": ("visualization/",),
    "fastapi": ("serve/",),
    "nicegui": ("serve/",),
    "sqlalchemy": ("serve/",),
    "alembic": ("serve/",),
    "argon2": ("serve/",),
    "httpx": ("serve/",),
    "paho": ("serve/",),
    "ray": ("scale/",),
    "fsspec": ("scale/",),
    "plotly": ("report/",),
    "jinja2": ("report/",),
    "faiss": ("models/patchcore/",),
    "torchvision": (),
    "cv2": ("data/video.py",),
    "sklearn": (),
}
# Upward doors: (file, module) that may be reached against the ranks, each with its reason. Two are verbs of a user.
DOORS = {
    ("models/base.py", "blemish.artifact"): "model.save(path), the spelling users expect",
    ("models/base.py", "blemish.export.exporting"): "model.export(path), likewise",
    ("engine/engine.py", "blemish.scale.pools"): "Engine(strategy='ray').fit, one verb wherever the work is done",
    ("engine/engine.py", "blemish.scale.fitting"): "likewise",
}
# Documented addresses of what moved: files that re-export, and nothing else (a test below sees to that).
SHIMS = {
    "__init__.py",
    "models/__init__.py",  # and the table of detectors
    "models/components/__init__.py",
    "models/fused/__init__.py",
    "models/padim/__init__.py",
    "models/padim/anomaly_map.py",
    "models/patchcore/__init__.py",
    "models/patchcore/lightning_model.py",
    "models/patchcore/model.py",
    "models/subspace/__init__.py",
    "post_processing/__init__.py",
    "post_processing/base.py",
    "post_processing/normalization/cdf.py",
    "post_processing/normalization/min_max.py",
    "post_processing/one_class.py",
    "post_processing/post_process.py",
    "post_processing/visualizer.py",
    "visualization/__init__.py",
    "visualization/classic.py",
    "visualization/visualizer.py",
}
MODULES = sorted(path for path in SRC.rglob("*.py"))


def name_of(path: Path) -> str:
    """src/blemish/data/index.py -> 'blemish.data.index'."""
    return ".".join(("blemish", *path.relative_to(SRC).with_suffix("").parts)).removesuffix(".__init__")


NAMES = {name_of(path) for path in MODULES}


def folder(module: str) -> str:
    """'blemish.data.index' -> 'data'."""
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> Iterator[str]:
    """Every absolute module name that a file imports: at any depth, for type checkers only, by `require`, or by a
    string that is the name of one of our modules.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in NAMES else node.module or "" for name in inner)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "require":
            yield from (word.value for word in node.args if isinstance(word, ast.Constant))
        elif isinstance(node, ast.Constant) and node.value in NAMES - {"blemish"}:
            yield str(node.value)


def ours(path: Path) -> set[str]:
    """Our own modules that a file imports, doors and itself left out."""
    relative = path.relative_to(SRC).as_posix()
    found = {name for name in imports(path) if name.split(".")[0] == "blemish"}
    return {name for name in found if (relative, name) not in DOORS}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SRC)))
def test_a_module_imports_strictly_lower_ranks_and_its_own_folder(path: Path) -> None:
    relative = path.relative_to(SRC).as_posix()
    own = path.relative_to(SRC).parts[0].removesuffix(".py")
    if relative in SHIMS:
        return
    for name in ours(path):
        assert name != "blemish", f"{relative} imports the package itself, through which everything can be reached"
        other = folder(name)
        if other != own:
            assert RANK[other] < RANK[own], f"{relative} (rank {RANK[own]}) imports {name} (rank {RANK[other]})"


def test_doors_are_used_and_shims_only_re_export() -> None:
    for relative, name in DOORS:
        assert name in set(imports(SRC / relative)), f"{relative} has no door to {name} any more"
    for relative in SHIMS - {"models/__init__.py"}:
        for node in ast.parse((SRC / relative).read_text(encoding="utf-8")).body:
            defines = isinstance(node, ast.ClassDef | ast.For | ast.While | ast.With)
            function = isinstance(node, ast.FunctionDef) and node.name != "__dir__"
            assert not defines | function, f"{relative}:{node.lineno} does more than re-export"


def test_imports_have_no_circles() -> None:
    """Doors and shims aside, not even for type checkers."""
    graph = {}
    for path in MODULES:
        if path.relative_to(SRC).as_posix() not in SHIMS:
            graph[name_of(path)] = ours(path) - {name_of(path)}
    while graph:  # modules that import nothing that is left can't be part of a circle
        free = {name for name, others in graph.items() if not others & graph.keys()}
        assert free, f"circles of imports among {sorted(graph)}"
        graph = {name: others for name, others in graph.items() if name not in free}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SRC)))
def test_third_party_packages_stay_behind_their_fences(path: Path) -> None:
    relative = path.relative_to(SRC).as_posix()
    for name in imports(path):
        allowed = FENCES.get(name.split(".")[0])
        if allowed is not None:
            assert relative.startswith(allowed) if allowed else False, f"{relative} imports {name}; allowed: {allowed}"


def test_every_module_imports() -> None:
    for module in pkgutil.walk_packages([str(SRC)], prefix="blemish."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def test_the_public_surface_is_what_we_meant_it_to_be() -> None:
    assert sorted(blemish.__all__) == sorted(
        [
            "__version__",
            "BlemishError",
            "Engine",
            "Fused",
            "ImageBatch",
            "ImageDataModule",
            "InferenceBatch",
            "Padim",
            "Patchcore",
            "PostProcessor",
            "PreProcessor",
            "Subspace",
            "load",
            "load_detector",
            "make_predictor",
            "to_dataframe",
        ]
    )
    assert len(blemish.__all__) <= 30
    for name in blemish.__all__:
        assert getattr(blemish, name) is not None


@pytest.mark.parametrize(
    "statement",
    [
        "import blemish",
        "import blemish.cli",
        "import blemish.data.index, blemish.data.image_io, blemish.data.splits",
        "import blemish.visualization",
        "import blemish.settings, blemish.models",
        "from blemish.runtime.session import Session",
    ],
)
def test_light_imports_load_no_heavy_package(statement: str) -> None:
    code = f"import sys; {statement}; print([m for m in ('torch', 'lightning', 'timm', 'pyarrow') if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_no_global_random_state_is_used() -> None:
    """Promise 10: randomness is a Generator argument. Calls that read or move the global state are banned by name."""
    banned = {"torch.manual_seed", "torch.seed", "np.random.seed", "random.seed", "seed_everything", "torch.randperm"}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                seeded = any(keyword.arg == "generator" for keyword in node.keywords)
                random = name in {"torch.rand", "torch.randn", "torch.randint", "torch.randperm"} and not seeded
                assert not random, f"{path.relative_to(SRC)}:{node.lineno}: {name} without a generator"
                assert name not in banned - {"torch.randperm"}, f"{path.relative_to(SRC)}:{node.lineno}: {name}"


def test_nothing_is_pickled() -> None:
    for path in MODULES:
        assert "pickle" not in set(imports(path)), path


def test_files_of_tests_have_names_of_their_own() -> None:
    """Two of one name can't be collected together."""
    names = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name, times in names.items() if times > 1] == []


def test_no_named_tuple_has_a_second_base() -> None:
    """Python 3.10 refuses them when the module is imported."""
    for path in SRC.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "NamedTuple" for base in node.bases):
                assert len(node.bases) == 1, f"{path.name}: {node.name}"
