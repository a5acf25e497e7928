"""Configuration of a dataset: its files, classes and splits."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, Tag, model_validator

from fcnlab.config.base import BUILTIN, Config, Entry, Finite, Length, SameType, Whole, tag_by_type
from fcnlab.config.mask_values import (
    ClassValues,
    MaskValue,
    check_values,
    parse_classes,
    parse_values,
    to_yaml_classes,
)
from fcnlab.errors import nearest


class Splits(Config):
    """Names of the splits by purpose.

    Attributes:
        train: split to train on.
        val: split to validate on; a checkpoint may be selected on it.
        test: split whose metrics are reported; val where there is none.
    """

    train: str = "train"
    val: str = "val"
    test: str | None = None


class Size(Config):
    """Height and width in pixels."""

    height: Length
    width: Length


def _check_pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"'{value}' is not a regular expression: {error}") from None
    return value


Pattern = Annotated[str, AfterValidator(_check_pattern)]
"""A regular expression."""

Part = Annotated[float, Field(strict=True, gt=0, lt=1)]
"""A part of all images, without none and all of them."""

SceneCount = Annotated[int, Field(strict=True, ge=1, le=100_000)]


class ShapesOptions(Config):
    """Configuration of the generated scenes of `shapes`.

    Attributes:
        train: number of scenes of the split `train`.
        val: number of scenes of the split `val`.
        test: number of scenes of the split `test`.
        height: height of the scenes in pixels.
        width: width of the scenes in pixels.
        seed: seed of the random generator.
    """

    train: SceneCount = 240
    val: SceneCount = 60
    test: SceneCount = 120
    height: Annotated[int, Field(strict=True, ge=32, le=1024)] = 96
    width: Annotated[int, Field(strict=True, ge=32, le=1024)] = 128
    seed: Whole = 0


class Fractions(Config):
    """Configuration of a random split: the fractions of all images that are `val` and `test`; the rest is `train`.

    The same ids and seed give the same split on every machine.

    Attributes:
        val: fraction of `val`, between 0 and 1.
        test: fraction of `test`, between 0 and 1; the dataset has a split `test` if it is above 0.
        seed: seed of the random order.
        group_by: regular expression on the ids; images with the same match are in the same split.
    """

    val: Part
    test: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.0
    seed: Whole = 0
    group_by: Pattern | None = None

    @model_validator(mode="after")
    def _check_sum(self) -> Fractions:
        if self.val + self.test >= 1:
            raise ValueError(f"val {self.val} and test {self.test} leave nothing to train on")
        return self

    @property
    def split_names(self) -> tuple[str, ...]:
        """The names of the splits."""
        return ("train", "val", "test") if self.test else ("train", "val")


class CrossValidation(Config):
    """Configuration of a cross-validation: all images are divided into folds, of which each trial holds out one.

    The trial with seed s holds out the fold with the index s modulo `folds`, so that the cells of a grid hold out the
    same images for the same seed. With more seeds than folds, the cross-validation is repeated, each time with another
    division. The same ids and `seed` give the same folds on every machine.

    Attributes:
        folds: number of folds.
        val: fraction of all images that become `val`, sampled from the folds that are not held out; the fold that is
            held out is then `test`. By default there is no `test`, and the fold that is held out is `val`.
        seed: seed of the random division; repetition r has `seed` + r.
        group_by: regular expression on the ids; images with the same match are in the same fold.
        fold: index of the fold that all trials hold out, from 0; by default it follows from their seeds.
    """

    folds: Annotated[int, Field(strict=True, ge=2, le=1000)]
    val: Part | None = None
    seed: Whole = 0
    group_by: Pattern | None = None
    fold: Whole | None = None

    @model_validator(mode="after")
    def _check_parts(self) -> CrossValidation:
        if self.fold is not None and self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} is not one of {self.folds} folds, 0 to {self.folds - 1}")
        if self.val is not None and self.val + 1 / self.folds >= 1:
            raise ValueError(f"val {self.val} and one of {self.folds} folds leave nothing to train on")
        return self

    @property
    def split_names(self) -> tuple[str, ...]:
        """The names of the splits."""
        return ("train", "val", "test") if self.val is not None else ("train", "val")

    @property
    def test_ratio(self) -> float:
        """The number of images that are held out, divided by the number of those that are trained on."""
        held_out = 1 / self.folds
        return held_out / (1 - held_out - (self.val or 0.0))

    def select_fold(self, seed: int) -> CrossValidation:
        """Return the division and the fold of the trial with a seed; the same for all seeds if `fold` is set.

        Args:
            seed: seed of the trial.
        """
        if self.fold is not None:
            return self
        repetition, fold = divmod(seed, self.folds)
        return self.model_copy(update={"seed": self.seed + repetition, "fold": fold})


class Dataset(Entry):
    """Base of the configurations of datasets.

    Attributes:
        type: the layout of the files, or `shapes`.
        splits: names of the splits by purpose.
        nominal: image size at which costs are computed.
    """

    not_in_key: ClassVar[frozenset[str]] = Entry.not_in_key | {"nominal"}

    type: str
    splits: Splits = Splits()
    nominal: Size

    @property
    def image_channels(self) -> int:
        """The number of channels of the images."""
        return 3

    @property
    def image_range(self) -> tuple[float, float] | None:
        """The values of images of more than 8 bits that become 0 and 255; None if it is not set."""
        return None

    @property
    def used_splits(self) -> tuple[str, ...]:
        """The names of all splits that have a purpose, without duplicates."""
        return tuple(dict.fromkeys((self.splits.train, *self.evaluated_splits)))

    @property
    def evaluated_splits(self) -> tuple[str, ...]:
        """The names of the splits on which trials are evaluated, without duplicates; the reported one is the last."""
        return tuple(dict.fromkeys(split for split in (self.splits.val, self.splits.test) if split is not None))

    @property
    def list_files(self) -> tuple[str, ...]:
        """Names of the text files with the ids of the splits."""
        return ()

    @property
    def folds_by_seed(self) -> CrossValidation | None:
        """The cross-validation, if the seed of a trial selects its fold; None if all trials have the same splits."""
        return None

    def select_fold(self, seed: int) -> Self:  # noqa: ARG002 - used by datasets with a cross-validation
        """Return the dataset of the trial with a seed: with the fold that it holds out, if there is a cross-validation.

        Args:
            seed: seed of the trial.
        """
        return self


class ShapesDataset(Dataset):
    """Configuration of generated scenes.

    Attributes:
        options: number and size of the scenes.
        nominal: always the size of the scenes, whatever is given.
    """

    type: Literal["shapes"]
    options: ShapesOptions = ShapesOptions()
    nominal: Size = Size(height=96, width=128)

    @model_validator(mode="after")
    def _set_nominal(self) -> ShapesDataset:
        size = Size(height=self.options.height, width=self.options.width)
        object.__setattr__(self, "nominal", size)  # the model is frozen
        self.model_fields_set.add("nominal")  # an override of the type keeps it
        return self


class KnownDataset(Dataset):
    """Configuration of a public dataset in its own layout.

    Attributes:
        folder: folder below the data root.
    """

    type: Literal["camvid", "voc2012", "cityscapes", "ade20k"]
    folder: str


class FolderDataset(Dataset):
    """Configuration of a dataset of a folder of images and a folder of masks, paired by name.

    The splits come from one of four: `{split}` in `images` and `masks`, `lists`, `fractions`, or `cross_validation`.

    Attributes:
        images: folder, absolute or in the lab or below the data root; `{split}` is replaced by the name of a split.
        masks: folder of masks: numbers, RGB, or palettes, of which the numbers or the colors are the classes.
        image_suffix: suffix after the id in the file name of an image, without or with the extension.
        mask_suffix: suffix after the id in the file name of a mask. With one of the two suffixes, images and masks may
            be in one folder.
        unpaired: refuse images without a mask, or skip them.
        classes: names in the order of the labels with the mask values of each: numbers, or colors such as '#804080'.
            A list of names has the values 0, 1, ...
        ignore: mask values whose pixels are ignored; 255 is ignored where it is not a class.
        lists: text files with one id, or the paths of an image and its mask, per line, by split; in the lab or below
            the data root.
        fractions: a random split.
        cross_validation: folds, of which each trial holds out another one.
        colors: colors of classes in pictures, such as '#804080'. Other classes have the colors of their color masks, or
            generated ones.
        palettes: `same` refuses palette masks with the same colors under other numbers; `any` does not compare
            palettes, because the numbers are the classes.
        channels: number of channels of the images: 3 (RGB), 1 (gray), or 4, the bands of the files. Images are
            converted to 1 or 3.
        value_range: values of images of more than 8 bits that become 0 and 255; by default 0 and 65535 for 16 bits.
            Values between them are scaled linearly and rounded, others are clipped.
    """

    not_in_key: ClassVar[frozenset[str]] = Dataset.not_in_key | {
        "images", "masks", "image_suffix", "mask_suffix", "unpaired", "lists", "colors", "palettes"
    }  # fmt: skip

    type: Literal["folder"]
    images: str
    masks: str
    image_suffix: str = ""
    mask_suffix: str = ""
    unpaired: Literal["refuse", "skip"] = "refuse"
    classes: Annotated[ClassValues, BeforeValidator(parse_classes), PlainSerializer(to_yaml_classes)]
    ignore: Annotated[tuple[MaskValue, ...], BeforeValidator(parse_values)] = ()
    lists: dict[str, str] = {}  # noqa: RUF012 - pydantic copies defaults
    fractions: Fractions | None = None
    cross_validation: CrossValidation | None = None
    colors: dict[str, Annotated[str, Field(pattern="^#[0-9a-fA-F]{6}$")]] = {}  # noqa: RUF012 - pydantic copies defaults
    palettes: Literal["same", "any"] = "same"
    channels: Annotated[Literal[1, 3, 4], SameType] = 3
    value_range: tuple[Finite, Finite] | None = None

    @property
    def image_channels(self) -> int:
        return self.channels

    @property
    def image_range(self) -> tuple[float, float] | None:
        return self.value_range

    @property
    def list_files(self) -> tuple[str, ...]:
        return tuple(self.lists.values())

    @property
    def folds_by_seed(self) -> CrossValidation | None:
        parts = self.cross_validation
        return parts if parts is not None and parts.fold is None else None

    def select_fold(self, seed: int) -> Self:
        if self.cross_validation is None:
            return self
        return self.model_copy(update={"cross_validation": self.cross_validation.select_fold(seed)})

    @model_validator(mode="after")
    def _check_values(self) -> FolderDataset:
        names = [name for name, _ in self.classes]
        unknown = [name for name in self.colors if name not in names]
        if unknown:
            raise ValueError(f"colors: no class '{unknown[0]}'; {nearest(unknown[0], names)}")
        if self.value_range is not None and self.value_range[0] >= self.value_range[1]:
            raise ValueError(f"value_range must increase, not {self.value_range[0]:g} to {self.value_range[1]:g}")
        check_values(self.classes, self.ignore)
        return self

    @model_validator(mode="after")
    def _check_splits(self) -> FolderDataset:
        placeholders = [folder.count("{split}") for folder in (self.images, self.masks)]
        random = {"fractions": self.fractions, "cross_validation": self.cross_validation}
        named = {"lists": tuple(self.lists)} if self.lists else {}
        named |= {source: parts.split_names for source, parts in random.items() if parts is not None}
        if any(placeholders) + len(named) != 1:
            raise ValueError(
                f"{'more than one' if named else 'no'} source of splits; give one of {{split}} in both 'images' and "
                "'masks', 'lists', 'fractions', or 'cross_validation'"
            )
        if any(placeholders):
            if placeholders != [1, 1]:
                raise ValueError("{split} must appear once in 'images' and once in 'masks'")
            return self
        [(source, names)] = named.items()
        unknown = [split for split in self.used_splits if split not in names]
        if unknown:
            raise ValueError(f"splits: '{source}' has no split '{unknown[0]}'; it has {', '.join(sorted(names))}")
        if source in random and "test" in names and self.splits.test is None:
            raise ValueError(f"'{source}' sets a test split that is not used; add splits: {{test: test}}")
        return self


class CustomDataset(Dataset):
    """Configuration of a dataset whose class is not built in.

    Attributes:
        type: name of its class among the extensions (see `docs/extending.md`).
        folder: folder that the class is created with, absolute or below the data root; None if it reads no files.
        options: keyword arguments of its class.
    """

    type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    folder: str | None = None
    options: dict[str, bool | int | Finite | str] = {}  # noqa: RUF012 - pydantic copies defaults


BuiltinDataset = Annotated[ShapesDataset | KnownDataset | FolderDataset, Field(discriminator="type")]

AnyDataset = Annotated[
    Annotated[BuiltinDataset, Tag(BUILTIN)] | Annotated[CustomDataset, Tag("custom")], tag_by_type(BuiltinDataset)
]
