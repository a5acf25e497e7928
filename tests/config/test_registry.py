"""The registry: built-in entries, entries of a lab, unknown names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fcnlab.config import registry as registry_module
from fcnlab.config.base import models_in
from fcnlab.config.optimizer import LrFactors
from fcnlab.config.recipe import Recipe
from fcnlab.config.registry import KINDS, builtin, load, shipped
from fcnlab.config.variant import NamedVariant
from fcnlab.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    folder = tmp_path / "registry"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_built_in_entries_of_its_type(kind: str) -> None:
    names = builtin().names(kind)
    assert names and names == sorted(names)
    assert all(isinstance(builtin().get(kind, name), tuple(models_in(KINDS[kind]))) for name in names)


@pytest.mark.parametrize("kind", ["backbone", "head", "upsampler", "dataset", "recipe"])
def test_every_built_in_component_has_a_description(kind: str) -> None:
    assert [name for name in builtin().names(kind) if not builtin().get(kind, name).description] == []


def test_without_a_registry_folder_the_registry_is_the_built_in_one(tmp_path: Path) -> None:
    assert load(None) is builtin()
    assert load(tmp_path / "registry") is builtin()


def test_an_uninstalled_checkout_reads_the_folders_beside_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named '{name}'")

    installed = shipped("registry").joinpath("recipes.yaml").read_text()
    monkeypatch.setattr(registry_module, "files", missing)
    assert shipped("registry").joinpath("recipes.yaml").read_text() == installed
    assert shipped("experiments").joinpath("quickstart.yaml").is_file()


def test_hidden_files_of_editors_and_of_macos_are_no_registry_files(registry: Path) -> None:
    (registry / ".#heads.yaml").symlink_to("user@host.1234")
    (registry / "._heads.yaml").write_bytes(b"\x00\x05\x16\x07")
    assert load(registry).names("head") == builtin().names("head")


def test_a_variant_of_a_lab_is_added_to_the_built_in_ones(registry: Path) -> None:
    (registry / "variants.yaml").write_text("mine: {backbone: resnet18-scratch, head: fcn16s, upsampler: random}\n")
    loaded = load(registry)
    assert loaded.get("variant", "mine") == NamedVariant(backbone="resnet18-scratch", head="fcn16s", upsampler="random")
    assert set(loaded.names("variant")) == {*builtin().names("variant"), "mine"}
    assert "mine" not in builtin().names("variant")


def test_a_variant_without_an_upsampler_has_the_default(registry: Path) -> None:
    (registry / "variants.yaml").write_text("mine: {backbone: resnet18-scratch, head: fcn16s}\n")
    assert load(registry).get("variant", "mine").model_dump()["upsampler"] == "bilinear"


def test_a_variant_may_name_components_of_other_files(registry: Path) -> None:
    # Names are looked up after all files are read; files may end in yaml or yml.
    (registry / "backbones.yaml").write_text("zz: {timm: test_resnet}\n")
    (registry / "upsamplers.yml").write_text("aa: {init: bilinear, bias: true}\n")
    (registry / "variants.yaml").write_text("mine: {backbone: zz, head: fcn8s, upsampler: aa}\n")
    assert load(registry).get("variant", "mine").model_dump()["backbone"] == "zz"


def test_a_name_of_a_different_built_in_entry_is_refused(registry: Path) -> None:
    (registry / "heads.yaml").write_text("fcn8s: {type: skip, stride: 16}\n")
    with pytest.raises(ConfigError, match=r"heads\.yaml: fcn8s: a built-in head has this name; choose another"):
        load(registry)


def test_a_name_of_an_entry_of_another_file_is_refused_with_the_file(registry: Path) -> None:
    (registry / "head.yml").write_text("mine: {type: skip, stride: 16}\n")
    (registry / "heads.yaml").write_text("mine: {type: skip, stride: 8}\n")
    with pytest.raises(ConfigError, match=r"heads\.yaml: mine: a head of head\.yml has this name; choose another"):
        load(registry)


def test_a_copy_of_the_built_in_registry_is_allowed() -> None:
    assert load(ROOT / "registry") == builtin()


def test_an_equal_entry_with_another_description_is_allowed(registry: Path) -> None:
    (registry / "heads.yaml").write_text("fcn8s: {description: of another version, type: skip, stride: 8}\n")
    assert load(registry) == builtin()


def test_an_unknown_name_is_an_error_with_the_registry_of_the_lab(registry: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^{re.escape(str(registry))}: no dataset 'street'; valid: "):
        load(registry).get("dataset", "street")
    with pytest.raises(ConfigError, match=r"^registry: no dataset 'street'; valid: "):
        builtin().get("dataset", "street")


def test_a_file_of_an_unknown_kind_is_an_error_with_the_nearest(registry: Path) -> None:
    (registry / "varaints.yaml").write_text("{}")
    with pytest.raises(ConfigError, match=r"varaints\.yaml: not a registry file; did you mean 'variants'\?"):
        load(registry)


def test_errors_of_an_entry_name_the_file_the_entry_and_the_key(registry: Path) -> None:
    (registry / "heads.yaml").write_text("mine: {type: skip, stride: 8, hiden: 8, fusion: add}\n")
    with pytest.raises(ConfigError) as caught:
        load(registry)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"{registry / 'heads.yaml'}: mine: ") for line in lines)
    assert "did you mean 'hidden'?" in lines[1] and "valid: concat, sum" in lines[0]


@pytest.mark.parametrize(
    ("component", "wrong", "right"),
    [("backbone", "resnet-18", "resnet18"), ("head", "fcn8", "fcn8s"), ("upsampler", "bilinaer", "bilinear")],
)
def test_a_variant_with_an_unknown_component_is_refused(registry: Path, component: str, wrong: str, right: str) -> None:
    names = {"backbone": "resnet18", "head": "fcn8s", "upsampler": "bilinear", component: wrong}
    (registry / "variants.yaml").write_text("mine: {" + ", ".join(f"{k}: {v}" for k, v in names.items()) + "}\n")
    with pytest.raises(
        ConfigError, match=rf"variant mine: {component}: no {component} '{wrong}'; did you mean '{right}'\?"
    ):
        load(registry)


@pytest.mark.parametrize(
    ("kind", "wrong", "right"),
    [
        ("head", "fcn_8s", "fcn8s"),
        ("backbone", "resnet81", "resnet18"),
        ("dataset", "voc2021", "voc2012"),
        ("recipe", "standart", "standard"),
        ("variant", "d2l-resnet81", "d2l-resnet18"),
    ],
)
def test_an_unknown_name_is_an_error_with_the_nearest(kind: str, wrong: str, right: str) -> None:
    with pytest.raises(ConfigError, match=rf"^here: no {kind} '{wrong}'; did you mean '{right}'\? valid: "):
        builtin().get(kind, wrong, "here")


def test_an_unknown_name_unlike_all_others_is_an_error_with_all_names() -> None:
    with pytest.raises(ConfigError, match=r"no head 'zzz'; valid: deeplabv3plus, .*, upernet$"):
        builtin().get("head", "zzz")


def test_an_unknown_kind_is_an_error_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown kind 'backbones'; did you mean 'backbone'\?"):
        builtin().names("backbones")


@pytest.mark.parametrize("name", [["fcn8s"], {"fcn8s": 1}, 8, None, True])
def test_a_name_that_is_not_a_string_is_an_unknown_name(name: object) -> None:
    with pytest.raises(ConfigError, match="no head"):
        builtin().get("head", name)


def test_every_timm_model_is_a_backbone_by_name() -> None:
    pretrained, scratch = (builtin().get("backbone", name) for name in ("timm:resnet18.tv_in1k", "scratch:resnet18"))
    assert pretrained.content() == builtin().get("backbone", "resnet18").content()
    assert scratch.content() == builtin().get("backbone", "resnet18-scratch").content()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet18", "'timm:resnet18' has no tag of weights; add timm's tag, as in timm:resnet18.tv_in1k"),
        ("timm:", "has no tag of weights"),
        ("scratch:", "is not scratch:NAME with a timm model"),
        ("scratch:resnet18.tv_in1k", "is not scratch:NAME with a timm model"),
        ("tim:resnet18", "no backbone 'tim:resnet18'; "),
    ],
)
def test_a_timm_name_with_missing_or_unknown_weights_is_rejected(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        builtin().get("backbone", name, "here")
    assert str(caught.value).startswith("here: ") and message in str(caught.value)


@pytest.mark.parametrize("kind", builtin().entries)
def test_every_built_in_entry_has_a_description_that_begins_with_a_sentence(kind: str) -> None:
    for name in builtin().names(kind):
        summary = builtin().get(kind, name).description.partition(". ")[0]
        assert 10 <= len(summary) <= 300, f"{kind} {name}"


@pytest.mark.parametrize("name", ["standard", "small-data"])
def test_the_general_recipes_assume_no_pretraining_and_evaluate_at_native_size(name: str) -> None:
    recipe = builtin().get("recipe", name)
    assert isinstance(recipe, Recipe)
    assert (recipe.batch_norm, recipe.freeze, recipe.lr_factors) == ("train", "none", LrFactors())
    assert recipe.score_scale == 1.0 and recipe.schedule.name == "poly"


def test_the_teaching_network_of_d2l_and_its_training_are_named() -> None:
    variant, recipe = builtin().get("variant", "d2l-resnet18"), builtin().get("recipe", "d2l")
    assert variant.content() == {"backbone": "resnet18", "head": "fcn32s", "upsampler": "d2l-bilinear"}
    assert recipe.content() == {
        "epochs": 5,
        "batch_size": 32,
        "crop": {"height": 320, "width": 480},
        "optimizer": {"name": "sgd", "lr": 0.001, "weight_decay": 0.001},
        "loss": {"reduction": "image_mean_sum"},
    }
